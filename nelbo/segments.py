"""Parts of the traffic that are judged by calibration records of their own."""

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator

from nelbo.bounds import Many
from nelbo.schema import Category, Schema

Numbers = NDArray[np.intp]

ALL = -1  # the number of no segment: a record that all calibration records judge


class Segments(BaseModel):
    """Which calibration record belongs to which segment: a category of one field.

    A false-alarm rate that holds of all records may be ten times as high in one line of production and nought in the
    next. Held against its own segment's records, it holds in each.

    Source: Vovk et al., Mondrian confidence machine, 2003.

    Attributes:
        field: of categories, by name.
        values: the segments' categories, numbered from 0.
        members: of each statistic, the segment of each of its calibration scores, in their order; -1 for none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str
    values: Many[bool | Category]
    members: dict[str, Many[int]]

    @model_validator(mode="after")
    def _members_are_numbered(self) -> "Segments":
        wrong = next((m for of in self.members.values() for m in of if not ALL <= m < len(self.values)), None)
        if wrong is not None:
            raise ValueError(f"a member belongs to segment {wrong}, and there are {len(self.values)}")
        return self

    def rows(self, statistic: str, number: int) -> Numbers:
        """Positions of a segment's scores among all of a statistic's."""
        return np.flatnonzero(np.array(self.members[statistic]) == number)

    def by_code(self, schema: Schema) -> Numbers:
        """The number of each code of the field, shape (n_codes,); ALL where it has none, as rare and unseen have.

        Raises:
            ValueError: the schema has no such field of categories, or it does not know one of the values.
        """
        field = next((field for field in schema.fields if field.name == self.field and field.is_coded), None)
        if field is None:
            raise ValueError(f"segments are those of '{self.field}', which is no field of categories")
        numbers = np.full(field.n_codes, ALL, dtype=np.intp)
        for number, value in enumerate(self.values):
            if value not in field.known:
                raise ValueError(f"segment {value!r} is no category of '{self.field}'")
            numbers[field.known.index(value)] = number
        return numbers
