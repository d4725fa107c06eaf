"""The page of a drift analysis: one HTML file that opens offline, and its figures as files for papers."""
