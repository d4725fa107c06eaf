"""The commands `compact`, which makes few large files of many small ones, and `files`, which lists what to read."""
