"""How the fleet stands now: workers, partitions, cameras and rejects, from the output's newest files and the broker."""
