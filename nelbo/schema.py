"""What the columns of a record are: `schema.json`, written by inference or by hand."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)

from nelbo.bounds import Many, first_fault
from nelbo.errors import SchemaError

Role = Literal["field", "id", "time", "segment", "label", "ignored"]
Kind = Literal["numeric", "categorical", "boolean", "timestamp"]
Category = StrictBool | StrictInt | StrictStr


class Column(BaseModel):
    """One column: what it is for, and for a field, how its values look.

    Attributes:
        name: as it stands in the record, brackets and blanks included.
        role: `field` is scored, `id` echoed, `time` orders the split, `segment` names a group,
            `label` and `ignored` are never scored.
        kind: of a field; None for every other role.
        nullable: a record may leave the field out. `null` is always a missing value, never an error.
        spike: numeric; a value that many records share exactly (zero, most often); the unit of a distance is found
            from the others.
        step: numeric; the step to which the values are rounded, in the field's own unit.
        unit: numeric; what stands behind a value in a sentence ("Nm").
        categories: categorical; the values with a code of their own, all strings or all integers.
        rare: categorical; values seen too seldom for a code of their own, which share one.
        note: why the column has its role, where that needs a word ("constant").
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    role: Role
    kind: Kind | None = None
    nullable: bool = False
    spike: FiniteFloat | None = None
    step: Annotated[FiniteFloat, Field(ge=1e-30)] | None = None
    unit: str | None = None
    categories: Many[Category] = ()
    rare: Many[Category] = ()
    note: str | None = None

    @model_validator(mode="after")
    def _kind_fits_role(self) -> "Column":
        if self.role == "field" and self.kind is None:
            raise ValueError(f"column '{self.name}' has role 'field' and needs a kind")
        if self.role != "field" and self.kind is not None:
            raise ValueError(f"column '{self.name}' has role '{self.role}', and only a field has a kind")
        known = self.categories + self.rare
        if any(isinstance(value, bool) for value in known):
            raise ValueError(f"column '{self.name}' has true or false among its categories; its kind is 'boolean'")
        if len({type(value) for value in known}) > 1:
            raise ValueError(f"column '{self.name}' mixes strings and integers in its categories")
        if len(set(known)) != len(known):
            raise ValueError(f"column '{self.name}' names a category twice")
        return self

    @property
    def is_coded(self) -> bool:
        """The field's values are codes of categories, not numbers."""
        return self.kind in ("categorical", "boolean")

    @property
    def known(self) -> tuple[Category, ...]:
        """The values that have a code of their own, in the order of the codes."""
        return (False, True) if self.kind == "boolean" else self.categories

    @property
    def rare_code(self) -> int:
        """The code that rare categories share."""
        return len(self.known)

    @property
    def unseen_code(self) -> int:
        """The code of a category that training did not see."""
        return len(self.known) + 1

    @property
    def n_codes(self) -> int:
        """How many codes a coded field has: its categories, rare, unseen."""
        return len(self.known) + 2


class Schema(BaseModel):
    """The columns of a table, in order.

    >>> schema = Schema(columns=(Column(name="rpm", role="field", kind="numeric"), Column(name="serial", role="id")))
    >>> [field.name for field in schema.fields]
    ['rpm']
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    extra: Literal["refuse", "ignore"] = "refuse"
    columns: Many[Column]

    @model_validator(mode="after")
    def _names_are_distinct(self) -> "Schema":
        seen = set()
        for column in self.columns:
            if column.name in seen:
                raise ValueError(f"column '{column.name}' is named twice")
            seen.add(column.name)
        return self

    def with_role(self, role: Role) -> tuple[Column, ...]:
        """The columns of one role, in order."""
        return tuple(column for column in self.columns if column.role == role)

    @cached_property
    def fields(self) -> tuple[Column, ...]:
        """The scored columns, in order: the order of contributions."""
        return self.with_role("field")

    @cached_property
    def numbers(self) -> tuple[Column, ...]:
        """The fields that a graph takes as numbers: numeric and timestamp."""
        return tuple(field for field in self.fields if not field.is_coded)

    @cached_property
    def codes(self) -> tuple[Column, ...]:
        """The fields that a graph takes as codes: categorical and boolean."""
        return tuple(field for field in self.fields if field.is_coded)

    @cached_property
    def positions(self) -> dict[str, int]:
        """Position of each field among the fields."""
        return {field.name: position for position, field in enumerate(self.fields)}

    @cached_property
    def places(self) -> tuple[list[int], list[int], list[int]]:
        """Among the fields: the positions of the numbers, those of the codes, and the unseen code of each of these."""
        numbers, codes = ([self.positions[field.name] for field in kind] for kind in (self.numbers, self.codes))
        return numbers, codes, [field.unseen_code for field in self.codes]

    def to_json(self) -> bytes:
        """The file's bytes: what is default is left out, so that a person reads only what matters."""
        return self.model_dump_json(indent=1, exclude_defaults=True).encode() + b"\n"

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file's bytes, in hex: equal schemas have equal digests."""
        return hashlib.sha256(self.to_json()).hexdigest()


def parse_schema(text: bytes, source: str) -> Schema:
    """A schema from the bytes of its file.

    Args:
        text: JSON.
        source: what to call it in an error, a path for example.

    Raises:
        SchemaError: naming the source, the place and what is wrong there.
    """
    try:
        return Schema.model_validate_json(text)
    except ValidationError as error:
        place, detail = first_fault(error)
        raise SchemaError(f"{source}: {place}: {detail}") from error


def read_schema(path: Path) -> Schema:
    """A schema from its file."""
    try:
        return parse_schema(path.read_bytes(), str(path))
    except OSError as error:
        raise SchemaError(f"{path}: cannot be read: {error.strerror}") from error
