"""The command `run`: classify images from Kafka until stopped."""
