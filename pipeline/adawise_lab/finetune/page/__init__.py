"""The page of a fine-tuning run, one HTML file: the curve, accuracies by class, and confusions."""
