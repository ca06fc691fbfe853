"""Search spaces and searchers: what to evaluate next, given what has been."""
