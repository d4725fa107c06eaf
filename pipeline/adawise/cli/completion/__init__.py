"""The command `completion`, which prints what a shell needs to complete commands, options and values."""
