"""The command `diff`, which proves two runs equal, or shows where they part."""
