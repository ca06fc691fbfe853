"""GPUs of this machine and the processes that hold them; nothing here needs torch."""
