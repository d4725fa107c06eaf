"""Where results go: a chain of segments for each partition, their traces, and the dead letters."""
