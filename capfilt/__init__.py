"""capfilt: caption and filter noisy web image-text pairs, and train on what is kept (BLIP, arXiv 2201.12086)."""

__version__ = "0.1.0"
