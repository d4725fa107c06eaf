"""Labelled images: from folders, lists and recordings."""
