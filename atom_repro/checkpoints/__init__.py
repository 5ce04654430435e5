"""Checkpoints on disk: module files, conversion of released weights, random weights."""
