"""Retention: old files are removed, and a name records the segment with which each chain then begins."""
