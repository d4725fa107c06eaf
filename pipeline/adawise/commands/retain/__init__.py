"""The command `retain`: what was written long ago is removed."""
