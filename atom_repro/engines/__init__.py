"""Inference engine: loads and runs module folders; operation and byte counts for rooflines."""
