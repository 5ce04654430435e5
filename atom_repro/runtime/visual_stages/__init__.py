"""Stages on visual tokens between encoder and decoder."""
