"""Track whose trainings sleep: what remains of a search is what orchestrates it.

Source: a CSV file with the columns `x` and `seconds`. Trial n sleeps as long as row n says, and its
score is a random number. The path of `benchmarks/installed` on PYTHONPATH installs it.
"""

from automl.domain.card import Card
from automl.domain.objective import Objective

TASK = "sleeping_regression"
CARD = Card(
    task=TASK,
    objectives=frozenset({Objective.RMSE}),
    default_objective=Objective.RMSE,
    data_keys=frozenset({"test_fraction"}),
    uses_gpu=False,
    track="benchmarks.sleeping.track:TRACK",
)
