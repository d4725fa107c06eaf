"""Which pair of models serves a root: what is asked of its workers, what they do about it, what a replay follows."""
