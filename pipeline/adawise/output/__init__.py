"""Reading, listing, verifying, compacting, retaining and repairing an output that a worker wrote."""
