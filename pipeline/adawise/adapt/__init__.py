"""The method: interpolate two weight sets, judge an alpha without labels, and search for the best one. Pure."""
