"""Everything that communicates with a Kafka broker."""
