"""Checks of whether a worker can do its work with these settings on this machine."""
