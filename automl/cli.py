"""The command `automl`."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from automl.commands.data import data
from automl.commands.output import AsJson, Home, emit, settings_of

if TYPE_CHECKING:
    from automl.views.library import Library

_PIPE_COLUMNS = 160  # nobody's terminal is narrow where there is none
_SHOWN_APART = frozenset(  # each in a form of its own, or for programs only
    {"curve", "rungs", "genotype", "schema", "moves", "layers", "difference", "versions"}
)

app = typer.Typer(
    help="Search for a better network every night and publish it as one ONNX file.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(data, name="data")

Why = Annotated[str | None, typer.Option("--why", help="One sentence for the record.")]


def main() -> None:
    """Run the command line and exit with its code."""
    # Waiting threads sleep instead of spinning: trials share the machine. Read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(message)s"
    )
    app()


@app.command()
def sample(name: str, directory: Path, home: Home = None, as_json: AsJson = False) -> None:
    """Write the sample dataset NAME, such as digits, and its study.yaml to DIRECTORY."""

    def make() -> dict[str, Any]:
        from automl.steps.study_file import write_sample

        return {"schema": 1, "sample": name, "study": str(write_sample(name, directory))}

    emit(as_json, make, lambda d: typer.echo(f"wrote {d['study']}; next: automl run {d['study']}"))


@app.command()
def run(study: Path, home: Home = None, as_json: AsJson = False) -> None:
    """Prepare, search, fit, export, evaluate and promote, in this process and its workers."""

    def make() -> dict[str, Any]:
        from automl.progress import progress_for
        from automl.steps.local_run import run_study
        from automl.steps.study_file import load_study_file

        spec = load_study_file(study)
        with progress_for(Console(stderr=True)) as progress:
            return run_study(settings_of(home), spec, progress)

    def show(document: dict[str, Any]) -> None:
        metric = document["metrics"][document["objective"]]
        typer.echo(
            f"version {document['version']} of {document['study']}: {document['objective']} "
            f"{metric['value']:.4f} [{metric['low']:.4f}, {metric['high']:.4f}], "
            f"{'promoted' if document['promoted'] else 'not promoted'}"
        )
        typer.echo(f"model {document['onnx']}")

    emit(as_json, make, show)


@app.command()
def check(study: Path, home: Home = None, as_json: AsJson = False) -> None:
    """Tell every problem of the study file STUDY, its data and the store, without running it."""

    def make() -> dict[str, Any]:
        from automl.doctor.study_file import check_study_file
        from automl.steps.study_file import read_study_file

        text = read_study_file(study)
        return check_study_file(settings_of(home), text.spec, text.locations)

    emit(as_json, make, lambda d: typer.echo(f"study {d['study']} can run; home {d['home']}"))


def _library(home: str | None) -> Library:
    from automl.views.library import Library

    return Library.open(settings_of(home))


def _table(rows: list[dict[str, Any]], columns: list[str]) -> None:
    table = Table(box=SIMPLE, pad_edge=False)
    for column in columns:
        table.add_column(
            column, no_wrap=column not in {"cause", "onnx", "why", "weights"}, overflow="ellipsis"
        )
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    console = Console()
    (console if console.is_terminal else Console(width=_PIPE_COLUMNS)).print(table)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


@app.command()
def studies(home: Home = None, as_json: AsJson = False) -> None:
    """List the studies of the home."""
    from automl.views.studies import list_studies

    columns = ["study", "state", "runs", "trials", "best_score", "champion", "owner", "opened_at"]

    def pretty(document: dict[str, Any]) -> None:
        _table(document["studies"], columns)
        for row in document["studies"]:
            if "error" in row:
                typer.echo(f"{row['study']}: error: {row['error']}")

    emit(as_json, lambda: list_studies(_library(home)).to_json(), pretty)


@app.command()
def give(
    study: str,
    dag: str,
    user: Annotated[
        str | None, typer.Option("--user", help="Of automl_search: the only one who may go on.")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Let STUDY belong to DAG from now on, or with `cli` to the command line."""
    from automl.steps.studies import give_study

    def pretty(document: dict[str, Any]) -> None:
        already = "" if document["changed"] else " already"
        typer.echo(f"{study} belongs to {document['owner']}{already}, before: {document['from']}")

    emit(as_json, lambda: give_study(settings_of(home), study, dag, user), pretty)


@app.command()
def abandon(study: str, home: Home = None, as_json: AsJson = False) -> None:
    """Close STUDY's open run, whose next step will never come, so that another may begin."""
    from automl.steps.studies import abandon as abandon_study

    def pretty(document: dict[str, Any]) -> None:
        run = document["run"]
        typer.echo(f"run {run} is abandoned" if run else f"no run of {study} is open")

    emit(as_json, lambda: abandon_study(settings_of(home), study), pretty)


@app.command()
def leaderboard(study: str, home: Home = None, as_json: AsJson = False) -> None:
    """Rank the trials of STUDY."""
    from automl.views.leaderboard import rank_trials

    columns = [
        "rank", "trial", "outcome", "score", "error", "parameters", "latency_ms", "seconds",
        "strategy", "parent", "rung", "cause",
    ]  # fmt: skip

    def pretty(document: dict[str, Any]) -> None:
        _table(document["trials"], columns)
        if document["strategies"]:
            typer.echo("By strategy, each judged by as many trials as the one with the fewest has:")
            _table(document["strategies"], list(document["strategies"][0]))

    emit(as_json, lambda: rank_trials(_library(home), study).to_json(), pretty)


@app.command()
def show(study: str, trial: int, home: Home = None, as_json: AsJson = False) -> None:
    """Show one TRIAL of STUDY with its lineage and learning curve."""
    from automl.views.trial import show_trial

    def pretty(document: dict[str, Any]) -> None:
        for key, value in document.items():
            if key not in _SHOWN_APART:
                typer.echo(f"{key}: {_cell(value)}")
        for made in document["versions"]:
            typer.echo(f"version {made['version']}: weights {made['summary']}")
        if document["layers"]:
            typer.echo(f"\n{document['layers']}")
        if document["difference"]:
            typer.echo(f"\nagainst trial {document['parent']}:\n{document['difference']}")
        if document["rungs"]:
            typer.echo("\nrungs:")
            _table(document["rungs"], list(document["rungs"][0]))
        if document["curve"]:
            _table(document["curve"], list(document["curve"][0]))

    emit(as_json, lambda: show_trial(_library(home), study, trial).to_json(), pretty)


@app.command()
def models(study: str, home: Home = None, as_json: AsJson = False) -> None:
    """List the published versions of STUDY."""
    from automl.views.models import list_models

    def pretty(document: dict[str, Any]) -> None:
        versions = document["versions"]
        objectives = list(dict.fromkeys(row["objective"] for row in versions))
        rows = [
            row
            | {
                row["objective"]: row["metrics"].get(row["objective"], {}).get("value"),
                "weights": row["weights"] and row["weights"]["summary"],
            }
            for row in versions
        ]
        _table(rows, ["version", "published_at", "promoted", *objectives, "weights", "onnx"])
        if document["promotions"]:
            _table(document["promotions"], ["promotion", "when", "from", "to", "who", "why"])
        typer.echo(f"champion: {document['champion']}")

    emit(as_json, lambda: list_models(_library(home), study).to_json(), pretty)


@app.command()
def promote(
    study: str, version: int, why: Why = None, home: Home = None, as_json: AsJson = False
) -> None:
    """Make VERSION the champion of STUDY."""
    from automl.steps.versions import promote_version

    emit(as_json, lambda: promote_version(settings_of(home), study, version, why), _show_champion)


@app.command()
def rollback(study: str, why: Why = None, home: Home = None, as_json: AsJson = False) -> None:
    """Make the champion before STUDY's present one champion again."""
    from automl.steps.versions import roll_back

    emit(as_json, lambda: roll_back(settings_of(home), study, why), _show_champion)


def _show_champion(document: dict[str, Any]) -> None:
    before = f", before it {document['from']}" if document["from"] is not None else ""
    already = "" if document["changed"] else " already"
    typer.echo(
        f"version {document['champion']} of {document['study']} is the champion{already}{before}"
    )
    typer.echo(f"model {document['onnx']}")


@app.command()
def predict(model: str, inputs: list[str], home: Home = None, as_json: AsJson = False) -> None:
    """Predict for INPUTS with MODEL: a study (its champion), STUDY@VERSION or an ONNX file."""

    def make() -> dict[str, Any]:
        from automl.steps.versions import predict_files

        return predict_files(settings_of(home), model, inputs)

    def show_rows(document: dict[str, Any]) -> None:
        for row in document["rows"]:
            if "error" in row:
                typer.echo(f"{row['input']}: error: {row['error']}")
            elif "value" in row:
                typer.echo(f"{row['input']}: {row['value']:.6g}")
            else:
                probability = row["probabilities"][row["label"]]
                typer.echo(f"{row['input']}: {row['label']} ({probability:.4f})")

    emit(as_json, make, show_rows)


@app.command()
def verify(study: str, home: Home = None, as_json: AsJson = False) -> None:
    """Check the files of STUDY's champion, or of STUDY@VERSION, and their predictions."""

    def make() -> dict[str, Any]:
        from automl.steps.versions import verify_version

        return verify_version(settings_of(home), study)

    def pretty(document: dict[str, Any]) -> None:
        for file in document["files"]:
            typer.echo(f"{'ok' if file['ok'] else 'BAD':4}{file['path']}")
        typer.echo(f"parity: {document['parity']}")

    document = emit(as_json, make, pretty)
    if not document["ok"]:
        bad = [file["path"] for file in document["files"] if not file["ok"]]
        typer.echo(f"error: {study} does not verify: {', '.join(bad) or 'parity'}", err=True)
        raise typer.Exit(3)


@app.command()
def replay(study: str, home: Home = None, as_json: AsJson = False) -> None:
    """Derive every proposal of STUDY from its log again and say which differ."""
    from automl.doctor.audit import replay_study

    def pretty(document: dict[str, Any]) -> None:
        for row in document["different"]:
            typer.echo(f"trial {row['trial']}: {row['field']} does not follow from the log")
        typer.echo(f"{document['trials']} proposals were derived again")

    document = emit(as_json, lambda: replay_study(settings_of(home), study), pretty)
    if not document["ok"]:
        trials = sorted({row["trial"] for row in document["different"]})
        typer.echo(
            f"error: proposals of {study} differ: trials {', '.join(map(str, trials))}", err=True
        )
        raise typer.Exit(3)


@app.command()
def doctor(home: Home = None, as_json: AsJson = False) -> None:
    """Check settings, store and devices, each with a remedy."""

    def make() -> dict[str, Any]:
        from automl.doctor import examine
        from automl.steps.study_file import load_study_file

        return examine(home, load_study_file).to_json()

    def pretty(document: dict[str, Any]) -> None:
        for row in document["checks"]:
            remedy = f" Remedy: {row['remedy']}" if row["remedy"] else ""
            typer.echo(f"{'ok' if row['ok'] else 'BAD':4}{row['check']}: {row['found']}{remedy}")

    document = emit(as_json, make, pretty)
    if not document["ok"]:
        raise typer.Exit(document["exit_code"])


if __name__ == "__main__":
    main()
