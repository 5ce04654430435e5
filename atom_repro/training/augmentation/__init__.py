"""What may be changed in a clip's frames before they are trained on; all frames of a clip alike."""
