"""Compaction: the many small segments of past days become few large files, beside the chain."""
