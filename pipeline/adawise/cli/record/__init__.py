"""The command `record`, which stores the raw messages of a topic as they came."""
