"""Labels: the word that a step's process says of what it does now, while it does it.

They go through the pipe of the result, one JSON document a line, before the result itself.
"""

from __future__ import annotations

import contextlib
import json
import os

RESULT_FD_VARIABLE = "AUTOML_RESULT_FD"
_KEY = "label"
LABEL_LETTERS = 200


def say_label(text: str) -> None:
    """Tell whoever supervises this process what it does now; without a supervisor do nothing."""
    named = os.environ.get(RESULT_FD_VARIABLE, "")
    if not named.isdecimal():
        return
    line = json.dumps({_KEY: text[:LABEL_LETTERS]}) + "\n"
    with contextlib.suppress(OSError):  # the supervisor is gone: then this process ends as well
        os.write(int(named), line.encode())


def split_labels(received: bytes) -> tuple[list[str], bytes]:
    """Return the labels among the lines of what a process said, and the rest."""
    labels, rest = [], []
    for line in received.split(b"\n"):
        label = _label(line)
        if label is None:
            rest.append(line)
        else:
            labels.append(label)
    return labels, b"\n".join(rest)


def _label(line: bytes) -> str | None:
    if not line.startswith(b'{"label"'):
        return None
    try:
        label = json.loads(line)[_KEY]
    except ValueError:  # not all of it has come yet
        return None
    return label if isinstance(label, str) else None
