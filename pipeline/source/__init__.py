"""Where messages come from: a Kafka topic, or a recording of one."""
