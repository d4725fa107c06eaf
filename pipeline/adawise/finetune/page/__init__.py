"""A run of fine-tuning as one HTML file: the curve, accuracies by class, and what is taken for what."""
