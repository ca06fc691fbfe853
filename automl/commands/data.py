"""The commands `automl data …`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from automl.commands.output import AsJson, Home, emit, settings_of

_SHOWN_ISSUES, _SHOWN_PAIRS = 20, 5
_SHOWN_PROBLEMS, _SHOWN_CLASSES, _SHOWN_STATISTICS, _SHOWN_NOTES, _WIDTH = 20, 8, 6, 4, 240

data = typer.Typer(help="Look at a study's data, and decide about them.", no_args_is_help=True)


@data.command()
def accept(
    study: str,
    why: Annotated[str, typer.Option("--why", help="One sentence for the record.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Let the changed data pass that STUDY's data gate has stopped."""
    from automl.steps.studies import accept_data

    def pretty(document: dict[str, Any]) -> None:
        already = "" if document["changed"] else " already"
        typer.echo(
            f"snapshot {document['snapshot']} of {study} is accepted{already}, "
            f"by {document['by']}: {document['why']}"
        )
        for change in document["changes"]:
            typer.echo(f"  - {change['message']}")

    emit(as_json, lambda: accept_data(settings_of(home), study, why), pretty)


@data.command()
def inspect(
    dataset: Annotated[str, typer.Argument(help="Name of the dataset's study, or NAME@SNAPSHOT.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show what the newest snapshot of DATASET holds, what is wrong with it, and its report."""
    from automl.doctor.data_report import inspect_data

    def pretty(document: dict[str, Any]) -> None:
        for line in _described(document):
            typer.echo(line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…")

    emit(as_json, lambda: inspect_data(settings_of(home), dataset).to_json(), pretty)


def _described(document: dict[str, Any]) -> Iterator[str]:
    """Yield the lines about a snapshot for people."""
    classes, problems = document["classes"], document["problems"]
    counted = f", {len(classes):,} classes" if classes else ""
    named = f"snapshot {document['snapshot']} of {document['dataset']}"
    yield f"{named}: {document['rows']:,} rows{counted}"
    yield f"source: {document['source']}"
    yield "parts: " + ", ".join(f"{part} {rows:,}" for part, rows in document["counts"].items())
    if classes:
        largest = sorted(classes, key=lambda each: -each["rows"])
        shown = [f"{each['label']!r} ({each['rows']:,})" for each in largest[:_SHOWN_CLASSES]]
        rest = len(classes) - len(shown)
        yield "classes: " + ", ".join(shown) + (f", and {rest:,} smaller ones" if rest else "")
    yield from (f"{name}: {text}" for name, text in document["facts"].items())
    statistics = list(document["statistics"].items())[:_SHOWN_STATISTICS]
    if statistics:
        told = (f"{name} {each['mean']:.4g} ± {each['std']:.4g}" for name, each in statistics)
        yield "means and standard deviations: " + ", ".join(told)
    if document["before"] is not None:
        yield f"compared with snapshot {document['before']}: {len(document['changes'])} changes"
    for problem in problems[:_SHOWN_PROBLEMS]:
        yield f"{'!' if problem['severe'] else '-'} {problem['message']}"
    more = len(problems) - _SHOWN_PROBLEMS
    if more > 0:
        yield f"and {more:,} more: --json has all of them"
    if not problems:
        yield "nothing that a person should look at was found"
    yield from (f"note: {note}" for note in document["notes"][:_SHOWN_NOTES])
    yield from filter(None, [document["report_problem"]])
    yield f"report: {document['report']}"


@data.command()
def issues(
    study: str,
    table: Annotated[
        str | None, typer.Option("--csv", help="Write all issues to this file; - to print them.")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """List rows of STUDY's data that are likely mislabelled, equal, nearly equal or odd."""
    from automl.doctor.data_issues import audit_data, write_table

    def make() -> dict[str, Any]:
        audit = audit_data(settings_of(home), study)
        if table not in {None, "-"}:
            write_table(audit, Path(str(table)))
        return audit.to_json() | ({"csv": audit.to_csv()} if table == "-" else {})

    def pretty(document: dict[str, Any]) -> None:
        if table == "-":
            typer.echo(document["csv"], nl=False)
            return
        for issue in document["issues"][:_SHOWN_ISSUES]:
            named = [issue["kind"], f"{issue['score']:g}", issue["path"], issue["part"]]
            change = " -> ".join(filter(None, [issue["label"], issue["suggested"]]))
            typer.echo("  ".join(filter(None, [*named, change, issue["related"], issue["note"]])))
        left = len(document["issues"]) - _SHOWN_ISSUES
        if left > 0:
            typer.echo(f"and {left:,} more: --csv FILE writes all of them")
        counts = ", ".join(f"{count:,} {kind}" for kind, count in document["counts"].items())
        typer.echo(f"snapshot {document['snapshot']} of {study}: {counts or 'no issues'}")
        for pair in document["confused"][:_SHOWN_PAIRS]:
            typer.echo(f"{pair['rows']} rows of {pair['given']} look like {pair['suggested']}")
        for note in document["notes"]:
            typer.echo(f"note: {note}")

    emit(as_json, make, pretty)
