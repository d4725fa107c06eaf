"""The commands `pair`: another pair of models, other classes or another card, without a stop."""
