"""The commands `automl data …`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from automl.commands.output import AsJson, Home, emit, settings_of

data = typer.Typer(help="Decide about a study's data.", no_args_is_help=True)


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
