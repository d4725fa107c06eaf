"""Decoding of untrusted message bytes into images, or a reason why not. Pure, except for the child process."""
