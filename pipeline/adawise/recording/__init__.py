"""Recordings of a topic's raw messages, kept as they came and read again through the topic's contract."""
