"""The card of a pair: what calibrating it found, and the advice that follows. Pure."""
