"""A study whose processes are killed at every storage operation, one at a time."""
