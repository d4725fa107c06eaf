"""The proof that a root is whole."""
