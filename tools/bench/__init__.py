"""Benchmarks. Their threads of OpenMP wait as the command line's do: spinning ones would count as work."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded
