"""Producers that send the images of a folder, a list or a video as messages of a topic."""
