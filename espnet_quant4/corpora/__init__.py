"""Data preparation of corpora that recipes share."""
