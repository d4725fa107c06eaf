"""The command `evaluate`, which compares strategies on labelled images."""
