"""Several commands as one study: routing of overrides, stage processes."""
