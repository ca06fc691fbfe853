"""Base of all documents: a frozen value with a JSON form."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Row(BaseModel):
    """A part of a document, such as a row of a table."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        serialize_by_alias=True,
        validate_by_name=True,
        defer_build=True,  # importing a view costs little; looking at one pays for it
    )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, keys in the order of the fields."""
        return self.model_dump(mode="json")


class Document(Row):
    """A whole document; the number of its schema comes first."""

    schema_version: Literal[1] = Field(1, alias="schema")
