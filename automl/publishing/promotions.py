"""The promotions of a study: a numbered list that only grows, the truth about its champion."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from automl.domain.layout import ModelKeys
from automl.errors import NotFoundError, PreconditionFailedError
from automl.publishing.manifest import Promotion, parse_record
from automl.storage.objects import ObjectStore


@dataclass(frozen=True, slots=True)
class Change:
    """Result of a promotion or a rollback.

    Attributes:
        number: of the promotion that made the wanted version the champion.
        promotion: that promotion.
        is_new: this call recorded it; otherwise the version was champion already.
    """

    number: int
    promotion: Promotion
    is_new: bool


class Promotions:
    """The list, numbered from 1 without gaps; a promotion never changes once it is there.

    Args:
        store: where the list lives.
        keys: those of the study's versions.
    """

    def __init__(self, store: ObjectStore, keys: ModelKeys) -> None:
        self._store, self._keys = store, keys
        self._known: dict[int, Promotion] = {}  # each is read once: they never change

    def numbers(self) -> list[int]:
        """Return the numbers given so far, in order."""
        prefix = self._keys.promotions
        names = (entry.key.removeprefix(prefix) for entry in self._store.list(prefix))
        stems = (name.removesuffix(".json") for name in names)
        return sorted(int(stem) for stem in stems if stem.isdecimal())

    def latest(self) -> tuple[int, Promotion] | None:
        """Return the last promotion and its number, None before the first."""
        numbers = self.numbers()
        return (numbers[-1], self._read(numbers[-1])) if numbers else None

    def until(self, number: int) -> dict[int, Promotion]:
        """Return the promotions up to and including `number` by their numbers, oldest first."""
        return {n: self._read(n) for n in self.numbers() if n <= number}

    def add(self, number: int, promotion: Promotion) -> bool:
        """Store `promotion` under `number` and return whether it is there; False if another is.

        A write whose reply was lost is recognised by its content.
        """
        try:
            self._store.put_if_absent(self._keys.promotion(number), promotion.to_bytes())
        except PreconditionFailedError:
            try:
                return self._read(number) == promotion
            except NotFoundError:  # somebody is just creating it
                return False
        return True

    def _read(self, number: int) -> Promotion:
        if number not in self._known:
            key = self._keys.promotion(number)
            self._known[number] = parse_record(Promotion, self._store.get(key).data, key)
        return self._known[number]


def version_before(promotions: Iterable[Promotion]) -> int | None:
    """Return the version that a rollback of the last promotion leads to, None if there is none.

    A promotion to a version that has been champion returns to it, whoever asked for it: the
    champions since then no longer lie before anything. So every rollback goes one champion further
    back, and none returns to the version that the one before has just left.

    Args:
        promotions: all of them, oldest first.
    """
    line: list[int] = []  # the champions that lie before the last one, and it
    for promotion in promotions:
        if promotion.to_version in line:
            del line[line.index(promotion.to_version) + 1 :]
        else:
            line.append(promotion.to_version)
    return line[-2] if len(line) > 1 else None
