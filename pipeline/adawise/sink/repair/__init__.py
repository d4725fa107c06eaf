"""Mending a root of which files were lost."""
