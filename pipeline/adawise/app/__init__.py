"""Settings -> model, source, sink, worker: the composition root."""
