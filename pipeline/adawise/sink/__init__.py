"""The sink of results: a chain of segments for each partition, and their traces."""
