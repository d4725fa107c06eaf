"""AdaWiSE as a streaming system: adaptive weight-space ensembling of two CLIP models over camera feeds."""

__version__ = "0.1.0"
