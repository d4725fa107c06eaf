"""The command `drift`, which says when and how far alpha moved, and whether adapting helped."""
