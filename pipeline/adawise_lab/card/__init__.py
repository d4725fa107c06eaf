"""Making, extending and correcting cards."""
