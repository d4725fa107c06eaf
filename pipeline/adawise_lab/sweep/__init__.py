"""A sweep: the same recording replayed with several settings, and a table of what each of them serves."""
