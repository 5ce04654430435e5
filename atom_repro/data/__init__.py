"""Data sets, their loaders and evaluation protocols."""
