"""The demo world: rendered scenes whose truth is known."""
