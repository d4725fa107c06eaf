"""The parts of a replay beside the worker: its pace, its part of a log, the states it goes on from, its claim."""
