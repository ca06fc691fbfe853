"""The surrogate of the Bayesian searcher, its kernel and its acquisition."""
