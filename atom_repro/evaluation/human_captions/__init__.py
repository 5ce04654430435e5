"""What human captions give as captions and as a retrieval index (a ceiling for models)."""
