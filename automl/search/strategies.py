"""Names of strategies, as trials record them, that do not depend on who searches."""

SEED = "seed"  # of a seed of the space
REPEAT = "repeat"  # of a candidate that is measured again on a changed dataset
COMMON = frozenset({SEED, REPEAT})
