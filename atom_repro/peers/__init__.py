"""Other software that runs the same shapes: timed beside our engines, in the same minutes."""
