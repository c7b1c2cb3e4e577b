"""Measuring models on published annotation files."""
