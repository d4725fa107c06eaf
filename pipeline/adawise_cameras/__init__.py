"""Readers of cameras, devices and videos: they turn streams into frames for a topic, watch them and reconnect."""
