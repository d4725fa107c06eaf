"""Labelled images: out of folders, tables and recordings."""

FORMS = (
    "a folder with a subfolder for each class, a Parquet or Arrow file with the columns image and label, "
    "or a recording with labels"
)
"""What every command takes that asks for labelled images; for its help and for errors."""
