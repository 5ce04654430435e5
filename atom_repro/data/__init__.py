"""Data sets, their readers and evaluation protocols."""
