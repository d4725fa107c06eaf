"""The command `evaluate`: strategies side by side on labelled images."""
