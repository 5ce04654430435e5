"""Evaluation protocols over data sets: captions, retrieval, text tasks, endurance."""
