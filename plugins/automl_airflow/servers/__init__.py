"""Real servers from wheels, which need neither root nor containers: for `make stack` and tests."""
