"""Augmentations of training clips; all frames of a clip are transformed alike."""
