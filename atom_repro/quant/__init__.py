"""Post-training quantisers."""
