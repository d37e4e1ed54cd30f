"""Labelled files: read, reported on, split, kept as versions."""
