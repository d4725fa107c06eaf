"""Labelled images, from folders, tables and recordings."""

FORMS = (
    "a folder with a subfolder for each class, a Parquet or Arrow file with the columns image and label, "
    "or a recording with labels"
)
"""The forms of labelled images that every command accepts; for help texts and errors."""
