"""Events: what happened to a camera, over all its measures."""
