"""Quality, speed and memory, measured by `make bench`; tests borrow servers and data."""
