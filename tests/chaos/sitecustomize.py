"""Lets every Python process of a chaos run, those of Ray's workers too, know the store that fails."""

import fsspec

fsspec.register_implementation("flaky", "flaky.FlakyStore")
