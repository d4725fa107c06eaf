"""Compaction: the many small segments of past days are copied into few large files, beside the chain."""
