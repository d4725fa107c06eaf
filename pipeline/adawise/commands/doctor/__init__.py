"""The command `doctor`: whether a worker could do its work here, part by part."""
