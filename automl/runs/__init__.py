"""How a run of a study proceeds, whatever is searched."""
