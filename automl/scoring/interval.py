"""A metric with its confidence interval, apart from what computes it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Interval(BaseModel):
    """A metric with its 95 % confidence interval over n rows."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    value: float
    low: float
    high: float
    n: int
