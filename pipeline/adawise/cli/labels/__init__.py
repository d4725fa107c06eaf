"""The command `labels`, which stores labels that come later by Kafka."""
