"""The method: interpolate two weight sets, judge an alpha without labels, search for the best one. Pure functions."""
