"""Golden files: what users' programs depend on, as text beside this module.

A change that is not meant to change behaviour leaves them as they are. `python -m tests.golden --write` writes them
again where a change is meant.
"""
