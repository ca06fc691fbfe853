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

_END = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(arguments: list[str]) -> int:
    """Run the command and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m automl_airflow", description=__doc__)
    parser.add_argument("command", choices=["up", "serve", "status", "down", "demo"])
    parser.add_argument("--shape", choices=list(commands.SHAPES), default="local")
    parser.add_argument("--folder", type=Path, default=None, help="where everything is kept")
    parser.add_argument("--dags", type=Path, default=Path("dags"), help="folder of the DAG files")
    parser.add_argument("--time-limit", default="2m", help="search time of the demo")
    options = parser.parse_args(arguments)
    if options.command in {"serve", "demo"}:
        _interrupt_once()
    try:
        _run(options)
    except AutoMLError as error:
        commands.say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        commands.say("interrupted")
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


def _interrupt_once() -> None:
    """Let the first signal that asks for the end interrupt, and the others not break off the end.

    Signals that are ignored already, as by `nohup`, stay so.
    """
    asked = [each for each in _END if signal.getsignal(each) is not signal.SIG_IGN]

    def interrupt(signum: int, frame: object) -> None:
        for each in asked:
            signal.signal(each, _go_on)
        raise KeyboardInterrupt

    for each in asked:
        signal.signal(each, interrupt)


def _go_on(signum: int, frame: object) -> None:
    pass


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
