"""The command `drift`: when and how far alpha moved, and whether adapting helped."""
