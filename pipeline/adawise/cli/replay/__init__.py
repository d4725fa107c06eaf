"""The command `replay`, which runs the worker on a recording, or on what a topic holds."""
