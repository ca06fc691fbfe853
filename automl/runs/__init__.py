"""Runs of studies: how they proceed, whatever is searched."""
