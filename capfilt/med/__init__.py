"""MED, the multimodal mixture of encoder and decoder (BLIP, arXiv 2201.12086)."""
