"""Tracks: all that knows what is learned from what."""
