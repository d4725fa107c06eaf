"""The command `compact`: few large files of the many small ones of past days; and `files`, which lists what to read."""
