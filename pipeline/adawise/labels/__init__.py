"""Labels that come later: their messages, how they lie on disk, and how rows are found for them."""
