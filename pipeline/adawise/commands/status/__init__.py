"""The command `status`: how the fleet stands now."""
