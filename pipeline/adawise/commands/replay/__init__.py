"""The command `replay`: the worker on a recording, or on what a topic holds."""
