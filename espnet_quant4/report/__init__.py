"""Scores, tables and progress of experiments: reads what ESPnet wrote, never trains."""
