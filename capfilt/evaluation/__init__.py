"""Measuring what a model can do, on annotation files as they were published."""
