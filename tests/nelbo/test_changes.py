import pytest

from nelbo.changes import Change, changes, refuse_changes
from nelbo.errors import SchemaChangedError
from nelbo.schema import Column, Schema

RPM = Column(name="rpm", role="field", kind="numeric")


def schema(*columns: Column, extra: str = "refuse") -> Schema:
    return Schema(columns=columns, extra=extra)


def test_equal_schemas_ask_for_the_same() -> None:
    assert changes(schema(RPM), schema(RPM)) == ()


def test_what_a_fit_learns_anew_is_no_change_nor_is_the_order_of_columns() -> None:
    valve = Column(name="valve", role="field", kind="categorical", categories=("open",), rare=("ajar",))
    later = valve.model_copy(update={"categories": ("open", "shut"), "rare": (), "note": "few values"})
    moved = RPM.model_copy(update={"step": 0.1, "spike": 0.0})
    assert changes(schema(RPM, valve), schema(later, moved)) == ()


@pytest.mark.parametrize(
    ("after", "before_in_words", "after_in_words"),
    [
        (RPM.model_copy(update={"nullable": True}), "a number", "a number, or none"),
        (RPM.model_copy(update={"unit": "Hz"}), "a number", "a number in Hz"),
        (Column(name="rpm", role="field", kind="boolean"), "a number", "true or false"),
        (Column(name="rpm", role="field", kind="timestamp"), "a number", "a time"),
        (Column(name="rpm", role="field", kind="categorical", categories=(1,)), "a number", "a category, whole number"),
        (Column(name="rpm", role="field", kind="categorical", categories=("a",)), "a number", "a category, text"),
        (Column(name="rpm", role="id"), "a number", "an id"),
        (Column(name="rpm", role="label"), "a number", "anything, not scored"),
    ],
)
def test_what_whoever_sends_records_would_notice_is_named(
    after: Column, before_in_words: str, after_in_words: str
) -> None:
    assert changes(schema(RPM), schema(after)) == (Change("rpm", before_in_words, after_in_words),)


def test_columns_that_come_and_go_are_named_and_so_is_what_becomes_of_other_names() -> None:
    new = Column(name="note", role="ignored")
    assert set(changes(schema(RPM), schema(new, extra="ignore"))) == {
        Change("rpm", "a number", "nothing"),
        Change("note", "nothing", "anything, not scored"),
        Change("(any other name)", "an error", "ignored"),
    }


def test_a_refusal_names_both_versions_and_every_column() -> None:
    with pytest.raises(SchemaChangedError) as info:
        refuse_changes("pumps@2", changes(schema(RPM), schema()), "pumps@1")
    assert str(info.value) == (
        "'pumps@2' reads other records than 'pumps@1', which is live: 'rpm': a number → nothing; it can be forced"
    )
