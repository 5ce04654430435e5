"""Caption, retrieval and text metrics, and confidence intervals."""
