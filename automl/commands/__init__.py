"""Commands of `automl` in groups of their own, and what all commands print."""
