"""Values that everything else speaks of: specification, candidate, trial, events, study."""
