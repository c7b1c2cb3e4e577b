"""The Ray side: thin actors and stages around library functions. Imports capfilt; imported by pipelines."""
