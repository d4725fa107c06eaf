"""The command `verify`, which proves that an output folder is whole."""
