"""The command `doctor`, which checks part by part whether a worker could do its work here."""
