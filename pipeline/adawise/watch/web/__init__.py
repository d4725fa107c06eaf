"""The HTTP port with probes, metrics and the live page. It runs in its own thread, whose failure spares the worker."""
