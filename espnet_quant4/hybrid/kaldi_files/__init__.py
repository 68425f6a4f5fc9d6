"""Kaldi's files: what this package writes itself, and what a user's own Kaldi made."""
