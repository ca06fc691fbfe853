"""Test of the image itself: `make image-test` builds it without Docker, and runs its services."""
