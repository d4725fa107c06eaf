"""The page of an evaluation: one HTML file that opens offline, with a verdict, figures, tables and how it was made."""
