"""Requests of studies to their tracks: the dataset to prepare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from automl.data.files import SourceStore
from automl.domain.specification import DataSection, SearchSection


@dataclass(frozen=True, slots=True)
class DatasetRequest:
    """The dataset of a study, as it shall be prepared.

    Attributes:
        name: of the dataset; snapshots lie under it.
        data: where the rows come from and how they are held out.
        search: how the study searches; what it gives to trainings may decide what rows become.
        thresholds: of the generation's split, by label; None for the generation's first snapshot,
            which fixes them.
        doubted: snapshot of the study's last run, if that failed: what is stored of it is to be
            read and checked, also where the new one is another; None: nothing is.
        facts: what the generation's runs recorded of their search space; empty before the first.
        locate: gives the store that holds a URI of `data`, and its key there; raises DataError for
            what does not exist, and ConfigError for what the run may not read. The store opens
            nothing else either, in whatever process.
    """

    name: str
    data: DataSection
    search: SearchSection
    thresholds: Mapping[str, Sequence[float]] | None
    doubted: str | None
    facts: Mapping[str, int | str]
    locate: Callable[[str], tuple[SourceStore, str]]

    @property
    def seed(self) -> int:
        """Key of the split."""
        return self.search.seed
