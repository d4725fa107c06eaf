"""The commands `drift` and `diff`."""
