"""Served images that are drawn with known probabilities to be labelled: the draw, its files, and what they say."""
