"""The bench: what the worker, its model and two other ways of serving reach on this machine, and what limits them."""
