"""Publishing to Kafka beside the output: results, alerts and dead letters, through one outbox."""
