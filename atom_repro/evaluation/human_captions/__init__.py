"""Human captions as captioner and as retrieval index: a reference level for models."""
