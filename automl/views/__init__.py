"""Documents that people look at, computed from study logs."""
