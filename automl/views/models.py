"""The published versions of a study, its promotions and its champion."""

from __future__ import annotations

from pydantic import Field

from automl.domain.layout import MODEL_FILE
from automl.scoring.interval import Interval
from automl.views.document import Document, Row
from automl.views.library import Library
from automl.views.provenance import Weights, weights_of


class VersionRow(Row):
    """A published version.

    Attributes:
        version: its number.
        published_at: ISO 8601; None in manifests of earlier releases.
        promoted: whether it has ever been the champion.
        objective: the metric that its search optimised.
        weights: how they were made; None where the log does not tell.
        metrics: on the report rows, by name.
        onnx: where the file lies, as a path or URI.
    """

    version: int
    published_at: str | None
    promoted: bool
    objective: str
    weights: Weights | None
    metrics: dict[str, Interval]
    onnx: str


class PromotionRow(Row):
    """One change of the champion.

    Attributes:
        promotion: its number.
        when: ISO 8601.
        from_version: the champion before, None for the first.
        to_version: the champion from then on.
        who: the run or the person.
        why: one sentence.
    """

    promotion: int
    when: str
    from_version: int | None = Field(alias="from")
    to_version: int = Field(alias="to")
    who: str
    why: str


class Models(Document):
    """The document of `automl models`.

    Attributes:
        study: the study's name.
        champion: the version that consumers load; None before the first promotion.
        versions: the published ones, oldest first.
        promotions: oldest first.
    """

    study: str
    champion: int | None
    versions: tuple[VersionRow, ...]
    promotions: tuple[PromotionRow, ...]


def list_models(library: Library, name: str) -> Models:
    """Return the published versions of a study, its promotions and which version is champion.

    Raises:
        ConfigError: there is no such study.
    """
    study, registry = library.study(name), library.registry(name)
    champion, promotions = library.champion_version(name), registry.promotions()
    promoted = {promotion.to_version for promotion in promotions.values()}
    return Models(
        study=name,
        champion=champion,
        versions=tuple(
            VersionRow(
                version=version,
                published_at=manifest.made_by.get("at"),
                promoted=version in promoted,
                objective=manifest.objective,
                weights=None if run is None else weights_of(run),
                metrics=dict(manifest.metrics),
                onnx=registry.uri(version, MODEL_FILE),
            )
            for version in registry.versions()
            for manifest, run in [(library.manifest(name, version), study.fitted(version))]
        ),
        promotions=tuple(
            PromotionRow(
                promotion=number,
                when=promotion.when,
                from_version=promotion.from_version,
                to_version=promotion.to_version,
                who=promotion.who,
                why=promotion.why,
            )
            for number, promotion in promotions.items()
        ),
    )
