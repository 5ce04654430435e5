"""Inference engines: load a module folder, run it; operation and byte counts for rooflines."""
