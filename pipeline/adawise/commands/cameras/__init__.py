"""The command `cameras`: streams of cameras, devices and videos into the topic, until stopped."""
