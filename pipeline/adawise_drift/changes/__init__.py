"""Change points of a camera's series, after the fact."""
