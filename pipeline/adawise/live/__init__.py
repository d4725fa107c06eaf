"""What is known of a running worker, or of a fleet of them, to be shown: cameras, health, metrics. Knows no HTTP."""
