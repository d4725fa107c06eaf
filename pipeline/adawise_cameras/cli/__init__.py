"""The command `cameras`, which publishes the frames of cameras, devices and videos until it is stopped."""
