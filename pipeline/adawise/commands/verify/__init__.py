"""The command `verify`: the proof that an output folder is whole."""
