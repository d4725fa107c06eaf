"""The worker's loop, from a message to a committed segment, and the parts that only the loop uses."""
