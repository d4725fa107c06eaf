"""One HTTP port: probes, metrics and the live page, in a thread of its own that cannot hurt the worker."""
