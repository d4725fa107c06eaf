"""The command `diff`: prove two runs equal, or show where they part."""
