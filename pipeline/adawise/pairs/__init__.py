"""The pairs of models that serve a root: the orders to its workers, what they do about them, what a replay follows."""
