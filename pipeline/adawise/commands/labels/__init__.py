"""The command `labels`: labels that come later by Kafka."""
