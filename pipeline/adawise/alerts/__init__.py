"""Alerts: rules over what is served of a camera, and over its silence; what was raised and is not cleared. Pure."""
