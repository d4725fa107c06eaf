"""The demo's pair: its training, and what is known of it."""
