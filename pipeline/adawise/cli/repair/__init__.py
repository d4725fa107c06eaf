"""The command `repair`, which mends an output folder whose files were lost."""
