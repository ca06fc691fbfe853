"""The track for image classification."""
