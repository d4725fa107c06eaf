"""Repair of a root whose files were lost."""
