"""A drill: a seeded schedule of injections against the stack while two studies run."""
