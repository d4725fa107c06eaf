"""The two CLIP checkpoints as one classifier: load and check the pair, merge it at an alpha, run the image tower."""
