"""The commands `dlq list`, `dlq show` and `dlq replay`, for messages that could not be read."""
