"""Module folders on disk: their files, conversion from released weights, random weights."""
