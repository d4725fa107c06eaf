"""What pages share: one HTML file each, which opens offline; its skeleton, style, figures, tables and numbers."""

from __future__ import annotations

NEEDS = {"jinja2": "jinja2", "altair": "altair", "vl_convert": "vl-convert-python"}
"""Module -> the package to install for it."""
