"""Messages that could not be read: written to a topic of their own, read back, and sent again."""
