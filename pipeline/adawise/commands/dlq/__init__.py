"""The commands `dlq list`, `dlq show` and `dlq replay`: messages that could not be read."""
