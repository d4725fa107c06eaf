"""The live state of a worker or of a fleet, for display: cameras, health and metrics. It does not depend on HTTP."""
