"""The acoustic model as ESPnet sees it, and what turns its posteriors into scores."""
