"""The generated data set: rendered clips, captions, text tasks and their ground truth."""
