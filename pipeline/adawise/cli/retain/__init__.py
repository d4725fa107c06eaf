"""The command `retain`, which removes what was written long ago."""
