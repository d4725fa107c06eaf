"""The command `record`: raw messages of a topic, kept as they came."""
