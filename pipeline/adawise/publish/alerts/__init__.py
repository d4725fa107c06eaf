"""Alerts: rules over the served labels and the silence of cameras, and the state of raised alerts. Pure."""
