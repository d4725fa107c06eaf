"""Strategies side by side on labelled images, offline: does adapting alpha help, when, and at what cost."""
