"""What happened, over all measures of a camera: one list of events."""
