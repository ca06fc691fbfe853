"""Cards of tracks: what must be known of one before it is loaded, and who draws its candidates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from automl.domain.objective import Objective


@dataclass(frozen=True, slots=True)
class Card:
    """Abilities of a track; importing a card loads nothing heavy.

    Attributes:
        task: the `task` of a study file that the track serves.
        objectives: those that its trials can be scored by.
        default_objective: that of a study file that names none.
        data_keys: keys of the section `data` that it understands.
        uses_gpu: whether its trainings gain by a GPU.
        track: where the track itself is, as `module:attribute`.
        most_members: largest number of candidates that one of its files blends.
        samples: functions that write a sample dataset and a study file into a folder and return
            the latter's path, by name, each as `module:function`.
        portrait: the function that draws a candidate's `Portrait` from its genotype and that of its
            parent, or None, as `module:function`; "" for a track without. It loads numpy at most.
        reader: the function that reads a data set into arrays of rows and labels, for those who
            work in Python, as `module:function`; "" for a track without.
        auditor: the function that reads a snapshot for an audit of its rows, as `module:function`;
            "" for a track without.
        exhibitor: the function that gives what a data report shows besides what every track has,
            such as pictures of rows, as `module:function`; "" for a track without.
    """

    task: str
    objectives: frozenset[Objective]
    default_objective: Objective
    data_keys: frozenset[str]
    uses_gpu: bool
    track: str
    most_members: int = 1
    samples: Mapping[str, str] = field(default_factory=dict)
    portrait: str = ""
    reader: str = ""
    auditor: str = ""
    exhibitor: str = ""


@dataclass(frozen=True, slots=True)
class Portrait:
    """A candidate for people.

    Attributes:
        summary: in a line.
        layers: as a table, a line per part.
        difference: in what it differs from its parent, a line per part; None without a parent.
    """

    summary: str
    layers: str
    difference: str | None
