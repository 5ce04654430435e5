"""A study of several commands: routing of overrides, stage processes."""
