"""The jobs: what the commands run. Imports workers and capfilt."""
