"""Which GPUs this machine has, and which process holds which of them; nothing here needs torch."""
