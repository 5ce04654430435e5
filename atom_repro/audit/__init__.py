"""The audit of the paper: its numbers and claims recomputed from its own cells."""
