"""The command `run`, which classifies images from Kafka until it is stopped."""
