"""The command `card`: calibrate a pair of models, or show a card."""
