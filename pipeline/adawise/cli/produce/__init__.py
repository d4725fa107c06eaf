"""The command `produce`, which publishes images of a folder, a list or a video to the topic."""
