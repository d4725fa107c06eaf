"""A labelled recording in the order of time: train on the intervals up to one, and test on the next."""
