"""The command `completion`: what a shell needs to complete commands, options and their values."""
