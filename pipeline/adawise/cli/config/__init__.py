"""The commands `config show`, for every setting and its origin, and `config init`, for a file to begin with."""
