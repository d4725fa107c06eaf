"""Labels that come later: their messages, their files, and how they are matched to rows."""
