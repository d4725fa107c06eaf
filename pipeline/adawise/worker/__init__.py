"""The loop from a message to a committed segment, and what only it uses."""
