"""The command `python -m automl_airflow`, which the Makefile calls."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from automl.errors import AutoMLError
from automl_airflow import commands
from automl_airflow.demo import demo


def main(arguments: list[str]) -> int:
    """Run the command and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m automl_airflow", description=__doc__)
    parser.add_argument("command", choices=["up", "serve", "status", "down", "demo"])
    parser.add_argument("--shape", choices=list(commands.SHAPES), default="local")
    parser.add_argument("--folder", type=Path, default=None, help="where everything is kept")
    parser.add_argument("--dags", type=Path, default=Path("dags"), help="folder of the DAG files")
    parser.add_argument("--time-limit", default="2m", help="search time of the demo")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _raise_interrupt)
    try:
        _run(options)
    except AutoMLError as error:
        commands.say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        commands.say("interrupted; everything is stopped")
        return 130
    return 0


def _run(options: argparse.Namespace) -> None:
    shape = commands.SHAPES[options.shape]
    folder = options.folder or Path(shape.folder)
    if options.command == "demo":
        folder = options.folder or Path(tempfile.mkdtemp(prefix="automl-demo-"))
        demo(folder.resolve(), options.dags, options.time_limit)
    elif options.command == "up":
        commands.up(options.shape, folder, options.dags)
    elif options.command == "serve":
        commands.serve(options.shape, folder, options.dags)
    elif options.command == "status":
        commands.status(folder, shape.target)
    else:
        commands.down(folder)


def _raise_interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
