"""The two CLIP checkpoints as one classifier with a knob: load and check the pair, merge at an alpha, run the tower."""
