"""The command `produce`: images of a folder, a list or a video into the topic."""
