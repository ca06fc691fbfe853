"""Bytes and details of fitted networks: weights and normalisation."""

from __future__ import annotations

import numpy as np

from automl.tracks.image.snapshot import ImageEnvelope
from automl.tracks.track import Member
from automl.training.results import weights_from_bytes


def weights_of(member: Member) -> dict[str, np.ndarray]:
    """Return the weights of a member; raise DamagedDataError if they cannot be read."""
    return weights_from_bytes(member.model, member.key)


def normalization_of(
    member: Member, envelope: ImageEnvelope
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation that a member was trained with; its weights know no other.

    Args:
        member: the member.
        envelope: of its snapshot, whose they are where its details do not say.
    """
    if not member.details:
        return envelope.mean, envelope.std
    return tuple(member.details["mean"]), tuple(member.details["std"])
