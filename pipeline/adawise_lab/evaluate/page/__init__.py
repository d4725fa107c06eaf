"""The page of an evaluation: one HTML file that opens offline, with advice, figures, tables and provenance."""
