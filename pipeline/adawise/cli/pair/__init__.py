"""The commands `pair`, which serve another pair of models, other classes or another card without a stop."""
