"""Shared parts of pages, which are one HTML file each that opens offline: skeleton, style, figures, tables, numbers."""

from __future__ import annotations

NEEDS = {"jinja2": "jinja2", "altair": "altair", "vl_convert": "vl-convert-python"}
"""Module -> the package to install for it."""
