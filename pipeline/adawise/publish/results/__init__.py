"""Results and alerts, published at once as messages on a topic of their own."""
