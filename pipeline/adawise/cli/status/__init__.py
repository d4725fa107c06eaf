"""The command `status`, which says how the fleet is doing now."""
