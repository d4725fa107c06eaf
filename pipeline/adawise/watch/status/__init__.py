"""The status of the fleet: workers, partitions, cameras and rejects, from the output's newest files and the broker."""
