"""Comparison of two runs over the same messages: equal bit by bit, or where they first differ."""
