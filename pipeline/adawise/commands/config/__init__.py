"""The command `config show`: every setting, and where it comes from."""
