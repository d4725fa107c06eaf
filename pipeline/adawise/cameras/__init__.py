"""Streams of cameras, devices and videos as frames for a topic: read, watched, connected again."""
