"""The proof that a root is whole, and the repair of one that is not."""
