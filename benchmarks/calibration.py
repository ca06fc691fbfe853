"""Whether the surrogate knows what it does not know: `make bench-calibration`.

Recorded studies of really trained networks are followed trial by trial. Before each one the
surrogate sees those before it and predicts the next; so do two simpler models. It prints a table
and writes it to `benchmarks/out/calibration.json`.

`python -m benchmarks.calibration --record DATASET` records a study anew. It goes on where it was
interrupted.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from automl.domain.events import Event, RunOpened, event_from_json, event_to_json
from automl.domain.study import Study, replay
from automl.runs.proposals import search_space
from benchmarks.forecasts import Forecast, calibration, forecasts
from benchmarks.trained import Plan, prepare_home, read_log, run_search

OUT = Path(__file__).parent / "out"
HISTORIES = Path(__file__).parent / "data" / "histories"
TRIALS = 55
SEED = 100
EPOCHS = {
    "digits": 8,
    "fashion_mnist_small": 4,
    "cifar10_small": 4,
    "plant_seedlings": 3,
    "clothing": 3,
}


def record(plan: Plan, out: Path, folder: Path) -> Path:
    """Run a study and write its log, without the places of its data, as compressed JSON lines.

    Args:
        plan: the search.
        out: where the file is written.
        folder: where the study's home is.
    """
    prepare_home(plan, folder)
    run_search(plan, folder)
    lines = [
        json.dumps([version, event_to_json(_without_places(event, plan.dataset))]) + "\n"
        for version, event in read_log(plan, folder)
    ]
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{plan.dataset}.jsonl.gz"
    path.write_bytes(gzip.compress("".join(lines).encode(), mtime=0))
    return path


def _without_places(event: Event, dataset: str) -> Event:
    if not isinstance(event, RunOpened):
        return event
    data = {**event.spec["data"], "source": dataset, "images": None}
    return event.model_copy(update={"spec": {**event.spec, "data": data}})


def read_history(path: Path) -> Study:
    """Return the study that `record` wrote."""
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    return replay((version, event_from_json(event, path.name)) for version, event in rows)


def main(arguments: Sequence[str]) -> None:
    """Record studies, or follow the recorded ones and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", nargs="+", choices=EPOCHS, default=[], metavar="DATASET")
    parser.add_argument("--histories", type=Path, default=HISTORIES)
    options = parser.parse_args(arguments)
    for dataset in options.record:
        plan = Plan(
            dataset, "bayesian", inherits=True, seed=SEED, trials=TRIALS, epochs=EPOCHS[dataset]
        )
        print(record(plan, options.histories, OUT / "histories"))
    if not options.record:
        _follow(options.histories)


def _follow(folder: Path) -> None:
    found: dict[str, list[Mapping[str, Forecast]]] = {}
    for path in sorted(folder.glob("*.jsonl.gz")):
        study = read_history(path)
        found[path.name.removesuffix(".jsonl.gz")] = [
            *forecasts(study, search_space(study.runs[0]))
        ]
    found["all"] = [row for rows in found.values() for row in rows]
    document = []
    for name, rows in found.items():
        for model in rows[0]:
            measured = calibration([row[model] for row in rows])
            document.append({"history": name, "model": model, **asdict(measured)})
            print(
                f"{name:22}{model:12}{measured.count:5} forecasts  "
                f"{100 * measured.coverage:5.1f} % in the 95 % interval  mean log likelihood "
                f"{measured.log_likelihood:7.3f}  root mean square error {measured.error:.3f}"
            )
    OUT.mkdir(exist_ok=True)
    (OUT / "calibration.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
