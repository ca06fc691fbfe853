"""Options and output that all commands share: a text, or one JSON document, and exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer

from automl.domain.settings import Settings
from automl.errors import AutoMLError

Home = Annotated[
    str | None, typer.Option("--home", help="Folder or s3://bucket/prefix; default AUTOML_HOME.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def settings_of(home: str | None) -> Settings:
    """Return the settings of this process, with the home that an option names."""
    return Settings.from_environment(home=home)


def emit(
    as_json: bool,
    make: Callable[[], dict[str, Any]],
    show: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Print what `make` returns, and return it; print its error and exit with the error's code."""
    try:
        document = make()
    except AutoMLError as error:
        _fail(as_json, error)
    if as_json:
        typer.echo(json.dumps(document))
    else:
        show(document)
    return document


def _fail(as_json: bool, error: AutoMLError) -> NoReturn:
    if as_json:
        problems = [{"path": p.path, "message": p.message} for p in error.problems]
        body = {
            "type": type(error).__name__,
            "message": error.message,
            "hint": error.hint,
            "problems": problems,
        }
        typer.echo(json.dumps({"schema": 1, "error": body}))
    else:
        typer.echo(f"error: {error}", err=True)
    raise typer.Exit(error.exit_code)
