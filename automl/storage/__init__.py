"""Object stores, the study log and leases."""
