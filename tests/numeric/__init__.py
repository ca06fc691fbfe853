"""Track for regression on rows of numbers, which shows that runs do not know what they search.

Source: a CSV file. Space: ridge regressions and nearest neighbours. Scores: out of fold over three
folds, which are its rungs. Its file blends two members. No torch, no inherited weights, no GPU.
"""

from automl.domain.card import Card
from automl.domain.objective import Objective

CARD = Card(
    task="numeric_regression",
    objectives=frozenset({Objective.RMSE}),
    default_objective=Objective.RMSE,
    data_keys=frozenset({"label", "test_fraction"}),
    uses_gpu=False,
    track="tests.numeric.track:TRACK",
    most_members=2,
)
