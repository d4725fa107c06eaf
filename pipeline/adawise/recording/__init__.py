"""Raw messages of a topic, kept as they came, and read again by the contract of the topic."""
