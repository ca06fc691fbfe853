"""Training: from an architecture and its genes to weights that can be resumed and measured."""
