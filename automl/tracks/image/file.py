"""The file of a fitted network: its bytes, and what it should compute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from automl.domain.specification import Resize
from automl.errors import ExportError
from automl.machine.cores import available_cores
from automl.morphism.architecture import Architecture
from automl.tracks.image.members import normalization_of, weights_of
from automl.tracks.image.onnx import build_onnx
from automl.tracks.image.snapshot import ImageEnvelope, ImageSnapshot
from automl.tracks.track import FileFacts, Member, Values

DECODING = (
    "8-bit RGB after EXIF orientation; alpha over white; 16-bit divided by 257; no colour profile"
)


def emit(
    snapshot: ImageSnapshot, members: Sequence[Member], properties: Mapping[str, str]
) -> bytes:
    """Return the ONNX file of a network, with the normalisation that it was trained with.

    Args:
        snapshot: has the preprocessing and the classes.
        members: the network.
        properties: metadata for the file.

    Raises:
        ExportError: there are several members, or the network does not fit the snapshot.
        DamagedDataError: the weights cannot be read.
    """
    member = _only(members)
    mean, std = normalization_of(member, snapshot.envelope)
    return build_onnx(
        Architecture.from_genotype(member.candidate.genotype),
        weights_of(member),
        mean,
        std,
        preprocess=snapshot.preprocess,
        labels=snapshot.envelope.classes,
        metadata=properties,
    )


def reference(
    envelope: ImageEnvelope, members: Sequence[Member], images: NDArray[np.uint8]
) -> Values:
    """Return the network's probabilities of preprocessed images, float32 on the CPU.

    Args:
        envelope: of the snapshot that the images are from.
        members: the network.
        images: uint8 `[n, S, S, 3]`.
    """
    from automl.training.inference import predict_probabilities  # torch is slow to import
    from automl.training.module import Normalization

    member = _only(members)
    mean, std = normalization_of(member, envelope)
    return predict_probabilities(
        Architecture.from_genotype(member.candidate.genotype),
        weights_of(member),
        Normalization(mean, std),
        images,
        available_cores(),
    )


def file_facts(envelope: ImageEnvelope, members: Sequence[Member]) -> FileFacts:
    """Return what a manifest says of the file of a network."""
    architecture = Architecture.from_genotype(_only(members).candidate.genotype)
    return FileFacts(
        labels=envelope.classes,
        input={
            "decode": DECODING,
            "resize": envelope.resize.value,
            "size": envelope.image_size,
        },
        parameters=architecture.parameters,
    )


def misfits(envelope: ImageEnvelope, published: FileFacts) -> Iterator[str]:
    """Yield in what a published file differs from one that would be fitted on a snapshot."""
    if published.labels != envelope.classes:
        old, new = set(published.labels), set(envelope.classes)
        lost, added = (", ".join(sorted(few)) or "none" for few in (old - new, new - old))
        yield f"its classes are not the dataset's: missing now {lost}; new {added}"
    resize = published.input.get("resize", Resize.STRETCH.value)
    if resize != envelope.resize:
        yield (
            f"its images are resized by {resize}, the dataset's by {envelope.resize}; "
            f"data.resize: {resize} makes them equal"
        )
    size = published.input.get("size")
    if size != envelope.image_size:
        yield (
            f"its images are {size} px wide, the dataset's {envelope.image_size} px; "
            f"data.image_size: {size} makes them equal"
        )


def _only(members: Sequence[Member]) -> Member:
    if len(members) != 1:
        raise ExportError(
            f"{len(members)} networks were to be blended in one file; this release writes files "
            "of one network."
        )
    return members[0]
