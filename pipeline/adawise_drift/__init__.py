"""Drift offline: when, where and how far alpha moved, and whether adapting it helped."""
