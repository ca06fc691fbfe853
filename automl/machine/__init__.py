"""The machine that a process runs on: processes, signals, cores, GPUs."""
