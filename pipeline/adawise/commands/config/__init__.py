"""The commands `config show` and `config init`: every setting, where it comes from, and a file to begin with."""
