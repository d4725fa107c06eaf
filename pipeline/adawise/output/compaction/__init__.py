"""The old part of a chain: its many small segments are copied into few large files, and retention removes it."""
