"""A schema from a table: what each column is for, and how its values look."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nelbo.errors import SchemaError
from nelbo.schema import Category, Column, Schema
from nelbo.tables import numbers, plain

# Fewer values than this may all differ, or count upwards, by chance; chosen.
_MIN_TELLING = 20
# A category's code is learnt from its own records alone, and fewer than five teach nothing; in a large table
# one record in 2,000 still adds too little to the loss to be learnt. Both chosen.
MIN_COUNT = 5
_MIN_SHARE = 0.0005
MAX_CATEGORIES = 1_000  # each costs an embedding and a logit; chosen
MAX_RARE = 10_000  # keeps the file readable; what lies beyond counts as unseen. Chosen
_SPIKE_SHARE = 0.2  # a smaller one does little harm to a continuous density; chosen
_FEW = 1_000  # values that are looked at first; chosen
_STEPS = [float(f"1e{power}") for power in range(3, -7, -1)]

Numbers = NDArray[np.float64]


def infer_schema(table: pa.Table) -> Schema:
    """The schema that a table suggests; a column that is no field carries a note that says why.

    Args:
        table: of the types that `nelbo.tables.read_columns` gives.

    >>> table = pa.table({"rpm": [1500.5, 1480.25, None], "line": [1, 1, 1]})
    >>> [(column.role, column.kind, column.note) for column in infer_schema(table).columns]
    [('field', 'numeric', None), ('ignored', None, 'constant')]
    """
    return fields_from(infer_roles(table), table)


def infer_roles(table: pa.Table) -> Schema:
    """The schema that a table suggests, without what `fields_from` adds to it but for `nullable`."""
    columns: list[Column] = []
    alike: dict[Any, list[str]] = defaultdict(list)
    for name in table.column_names:
        values = plain(table[name])
        earlier = alike[_sketch(values)]
        equal = next((other for other in earlier if _are_equal(plain(table[other]), values)), None)
        has_time = any(column.role == "time" for column in columns)
        column = _column(name, values, equal, has_time=has_time)
        is_field = column.role == "field"
        columns.append(column.model_copy(update={"nullable": values.null_count > 0}) if is_field else column)
        earlier.append(name)
    return Schema(columns=tuple(columns))


def fields_from(schema: Schema, table: pa.Table) -> Schema:
    """A schema whose fields also say what only records can: categories, rare, spike, step and nullable.

    What the schema states already stays as it is, `null` included.

    Args:
        schema: by hand or by inference.
        table: the records to fit on.

    Raises:
        SchemaError: a field is not in the table, or its kind does not fit the values there.

    >>> schema = Schema(columns=(Column(name="kind", role="field", kind="categorical"),))
    >>> fields_from(schema, pa.table({"kind": ["L", "M", "L"]})).fields[0].categories
    ('L',)
    """
    # Not model_copy: it would carry along the fields that the old schema has cached.
    return Schema(extra=schema.extra, columns=tuple(_completed(column, table) for column in schema.columns))


# --- the role of a column ----------------------------------------------------------------------------


def _column(name: str, values: pa.ChunkedArray, equal: str | None, *, has_time: bool) -> Column:
    """A column's role and kind."""
    present = values.drop_null()
    n_distinct = pc.count_distinct(present).as_py() if _is_plain(values.type) else 0
    note = _why_ignored(present, n_distinct, equal)
    if note is not None:
        return Column(name=name, role="ignored", note=note)
    if pa.types.is_timestamp(values.type) and not has_time:
        return Column(name=name, role="time")
    if pa.types.is_string(values.type):
        return _of_strings(name, present, n_distinct)
    if _counts_the_records(values, n_distinct):
        return Column(name=name, role="id", note="counts the records")
    return _of_values(name, values, n_distinct)


def _why_ignored(present: pa.ChunkedArray, n_distinct: int, equal: str | None) -> str | None:
    if len(present) == 0:
        return "no value in any record"
    if not _is_plain(present.type):
        return f"values of type {present.type}"
    if n_distinct == 1:
        return "constant"
    return None if equal is None else f"equal to '{equal}'"


def _of_strings(name: str, present: pa.ChunkedArray, n_distinct: int) -> Column:
    n = len(present)
    if n >= _MIN_TELLING and n_distinct > n / 2:
        role = "id" if n_distinct == n else "ignored"
        differ = "every value differs" if n_distinct == n else "nearly every value differs"
        return Column(name=name, role=role, note=differ + _almost_numbers(present))
    return Column(name=name, role="field", kind="categorical", note=_almost_numbers(present)[2:] or None)


def _almost_numbers(present: pa.ChunkedArray) -> str:
    """A word on a column that a few cells keep from being numeric: it would be dropped for no visible reason."""
    counted = pc.value_counts(present)
    cast, counts = numbers(counted.field(0)), counted.field(1).to_numpy()
    wrong = cast.wrong()
    n_wrong = int(counts[wrong].sum())
    if n_wrong == 0 or n_wrong > len(present) / 2:
        return ""
    return f"; {n_wrong} of {len(present)} values are no numbers, the first is {cast.source[wrong[0]].as_py()!r}"


def _of_values(name: str, values: pa.ChunkedArray, n_distinct: int) -> Column:
    """A field whose values are no strings."""
    if pa.types.is_boolean(values.type):
        return Column(name=name, role="field", kind="boolean")
    if pa.types.is_timestamp(values.type):
        return Column(name=name, role="field", kind="timestamp")
    # Some writers turn integers into floats where a value is missing.
    are_integers = pa.types.is_integer(values.type) or (values.null_count > 0 and _are_integral(values))
    return Column(name=name, role="field", kind="categorical" if are_integers and n_distinct <= 2 else "numeric")


def _counts_the_records(values: pa.ChunkedArray, n_distinct: int) -> bool:
    """Integers without a gap, a repetition or a missing value, in any order."""
    if not pa.types.is_integer(values.type) or len(values) < _MIN_TELLING or n_distinct < len(values):
        return False
    ends = pc.min_max(values).as_py()
    return bool(ends["max"] - ends["min"] + 1 == len(values))


def _is_plain(kind: pa.DataType) -> bool:
    return kind in (pa.bool_(), pa.int64(), pa.float64(), pa.string(), pa.timestamp("us"))


def _is_number(kind: pa.DataType) -> bool:
    return kind in (pa.bool_(), pa.int64(), pa.float64())


def _are_integral(values: pa.ChunkedArray) -> bool:
    if not pa.types.is_floating(values.type):
        return bool(pa.types.is_integer(values.type))
    present = _floats(values)
    return bool(np.all(present == np.floor(present)) and np.all(np.abs(present) <= 2.0**53))


def _sketch(values: pa.ChunkedArray) -> Any:
    """The same for equal columns, and seldom for others."""
    if not _is_plain(values.type):
        return str(values.type)
    return values.null_count, tuple(values.slice(0, 32).to_pylist())


def _are_equal(one: pa.ChunkedArray, other: pa.ChunkedArray) -> bool:
    """The same values and the same missing ones; 1 equals 1.0 and true."""
    if one.type != other.type:
        if not (_is_number(one.type) and _is_number(other.type)):
            return False
        one, other = one.cast(pa.float64(), safe=False), other.cast(pa.float64(), safe=False)
    return bool(one.equals(other))


# --- what only the values say ------------------------------------------------------------------------


def _completed(column: Column, table: pa.Table) -> Column:
    if column.role != "field":
        return column
    if column.name not in table.column_names:
        if column.nullable:
            return column
        raise SchemaError(f"expected a column '{column.name}' in the table, got none")
    values = plain(table[column.name])
    found: dict[str, Any] = {"nullable": values.null_count > 0} | _looks(column, values)
    return Column.model_validate(found | column.model_dump(exclude_unset=True))


def _looks(column: Column, values: pa.ChunkedArray) -> dict[str, Any]:
    kind = values.type
    if pa.types.is_null(kind):
        return {}
    if column.kind == "numeric" and kind in (pa.int64(), pa.float64()):
        present = _floats(values)
        distinct, counts = np.unique(present, return_counts=True)
        spike = _spike(distinct, counts)
        with np.errstate(over="ignore", invalid="ignore"):  # values near 1e308, whose step is no matter
            return {"spike": spike, "step": _step(distinct, present[present != spike])}
    if column.kind == "categorical" and (kind == pa.string() or (kind != pa.bool_() and _are_integral(values))):
        return _categories(column, values)
    if column.kind == "boolean" and kind == pa.bool_():
        return {}
    if column.kind == "timestamp" and kind != pa.bool_():
        return {}
    raise SchemaError(f"column '{column.name}': expected {_WANTED[str(column.kind)]}, got values of type {kind}")


_WANTED = {
    "numeric": "numbers for a numeric field",
    "categorical": "strings or integers for a categorical field",
    "boolean": "true and false for a boolean field",
    "timestamp": "times for a timestamp field",
}


def _floats(values: pa.ChunkedArray) -> Numbers:
    """The present values that are finite; a record with another one is refused when it is read."""
    present = np.asarray(values.drop_null().cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)
    return present[np.isfinite(present)]


def _spike(distinct: Numbers, counts: NDArray[np.int64]) -> float | None:
    """The value that stands out by its frequency, if there is one.

    It must be more than twice as frequent as any other, and as its two neighbours together: the readings of a
    sensor rounded to few levels are all frequent, the middle one most, and it is no state of its own as "zero"
    is.
    """
    if distinct.size <= 2:
        return None
    top = int(counts.argmax())
    neighbours = counts[max(0, top - 1) : top + 2].sum() - counts[top]
    rival = max(np.delete(counts, top).max(), neighbours)
    is_spike = counts[top] >= _SPIKE_SHARE * counts.sum() and counts[top] > 2 * rival
    return float(distinct[top]) if is_spike else None


def _step(distinct: Numbers, spread_out: Numbers) -> float | None:
    """The largest power of ten, from 1e-6 to 1e3, of which all values are multiples; None if it is no matter.

    What is expected of a field is shown in its steps. Below some thousandths of the values' own spread nobody would
    see the difference.

    Args:
        distinct: each value once.
        spread_out: all values but those of a spike, which no density describes.
    """
    for step in _STEPS:
        # Mostly a few say no already.
        if _are_multiples(distinct[:_FEW], step) and _are_multiples(distinct, step):
            return step if step / np.sqrt(12) >= 1e-3 * _spread(spread_out) else None
    return None


def _are_multiples(values: Numbers, step: float) -> bool:
    multiples = values / step
    tolerance = np.clip(1e-9 * np.abs(multiples), 1e-9, 1e-3)
    return bool(np.all(np.abs(multiples - np.rint(multiples)) <= tolerance))


def _spread(present: Numbers) -> float:
    """Standard deviation, or that of the bulk where it is smaller: heavy tails make the former huge."""
    if present.size == 0:
        return 0.0
    low, high = np.quantile(present, [0.25, 0.75])
    bulk = float(high - low) / 1.349  # the interquartile range of a normal distribution, in deviations
    return min(float(present.std()), bulk) if bulk > 0 else float(present.std())


def _categories(column: Column, values: pa.ChunkedArray) -> dict[str, Any]:
    """Frequent values with a code of their own, the others as rare; by frequency, then by value."""
    given = set(column.categories + column.rare)
    counts = _counts(values, as_text=any(isinstance(value, str) for value in given))
    order = sorted(counts, key=lambda value: (-counts[value], value))
    most = max(counts.values(), default=0)
    # In a table of few records no value may be frequent: then the most frequent ones are.
    enough = min(most, max(MIN_COUNT, _MIN_SHARE * len(values)))
    frequent = [value for value in order if counts[value] >= enough and value not in given][:MAX_CATEGORIES]
    categories: Sequence[Category] = column.categories or frequent
    rare = [value for value in order if value not in given and value not in set(categories)]
    return {"categories": categories, "rare": rare[:MAX_RARE]}


def _counts(values: pa.ChunkedArray, *, as_text: bool) -> dict[Any, int]:
    """How often each value is there; floats that are integral as integers."""
    if pa.types.is_floating(values.type):
        values = values.cast(pa.int64())
    if as_text:
        values = values.cast(pa.string())
    counted = pc.value_counts(values.drop_null())
    return dict(zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True))
