"""The command `card`, which calibrates a pair of models, or shows a card."""
