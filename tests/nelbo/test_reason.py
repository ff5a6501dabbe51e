import pytest

from nelbo.expectation import RARE, Expected
from nelbo.reason import Cause, sentence
from nelbo.schema import Column

TORQUE = Column(name="torque", role="field", kind="numeric", unit="Nm")
SPEED = Column(name="speed", role="field", kind="numeric")
LINE = Column(name="line", role="field", kind="categorical", categories=("A", "B"))
HEATED = Column(name="heated", role="field", kind="boolean")
OPENED = Column(name="opened", role="field", kind="timestamp")


@pytest.mark.parametrize(
    ("cause", "text"),
    [
        (Cause(TORQUE, 97, Expected(42.0, 38.0, 47.0)), "torque 97 Nm, expected 42 (38–47)"),
        (Cause(SPEED, 97.25, Expected(42.0)), "speed 97.25, expected 42"),
        (Cause(SPEED, 1 / 3, Expected(2e9, -1e-9, 1e16)), "speed 0.333333, expected 2000000000 (-1e-09–1e+16)"),
        (Cause(SPEED, 1234567, Expected(1e6)), "speed 1234567, expected 1000000"),
        (Cause(SPEED, None, Expected(1.5)), "speed infinite, expected 1.5"),
        (Cause(LINE, "Z", Expected("A")), "line 'Z', expected 'A'"),
        (Cause(LINE, "Z", Expected("A"), is_unseen=True), "line 'Z', never seen in training, expected 'A'"),
        (Cause(LINE, "A", Expected(RARE)), "line 'A', expected a rare value"),
        (Cause(LINE, 3, Expected(4)), "line 3, expected 4"),
        (Cause(HEATED, True, Expected(False)), "heated true, expected false"),
        (Cause(OPENED, "2026-01-05T03:00", Expected(None)), "opened '2026-01-05T03:00', unusual beside the others"),
        (Cause(SPEED, 0, Expected(0.0, -1.0, 2.0)), "speed 0, unusual beside the others"),
    ],
)
def test_each_kind_of_cause_has_its_words(cause: Cause, text: str) -> None:
    assert sentence([cause]) == text


def test_several_causes_stand_in_their_order() -> None:
    causes = [Cause(SPEED, 9, Expected(1.0)), Cause(TORQUE, 97, Expected(42.0, 38.0, 47.0))]
    assert sentence(causes) == "speed 9, expected 1; torque 97 Nm, expected 42 (38–47)"


def test_missing_and_unseen_values_are_named_beside_the_causes() -> None:
    found = sentence([Cause(SPEED, 9, Expected(1.0))], [TORQUE], [(LINE, "Z")])
    assert found == "speed 9, expected 1; also: line 'Z', never seen in training; torque is missing"


def test_more_than_five_of_these_are_counted() -> None:
    fields = [Column(name=f"x{i}", role="field", kind="numeric") for i in range(8)]
    found = sentence([Cause(SPEED, 9, Expected(1.0))], fields)
    assert found.endswith("also: x0 is missing; x1 is missing; x2 is missing; x3 is missing; x4 is missing; and 3 more")
    assert "x5" not in found


def test_causes_that_are_not_enough_say_so() -> None:
    found = sentence([Cause(SPEED, 9, Expected(1.0))], are_enough=False)
    assert found == "speed 9, expected 1; these explain only a part of it"
    assert sentence([], are_enough=False) == "no few fields explain it"


def test_unit_in_the_name_stands_behind_the_value_instead() -> None:
    field = Column(name="Torque [Nm]", role="field", kind="numeric", unit="Nm")
    assert sentence([Cause(field, 97, Expected(42.0))]) == "Torque 97 Nm, expected 42"
    assert sentence([Cause(field, 1, Expected(2.0))], [field]).endswith("also: Torque is missing")
    bare = Column(name="[Nm]", role="field", kind="numeric", unit="Nm")
    assert sentence([Cause(bare, 97, Expected(42.0))]) == "[Nm] 97 Nm, expected 42"


@pytest.mark.parametrize("wild", ["a\nb", "\x1b[31m", "a\u2028b", "\x00", "x" * 10_000, "'\"\\", "\u202e"])
def test_sentence_of_any_name_and_value_is_one_short_printable_line(wild: str) -> None:
    field = Column(name=wild, role="field", kind="categorical", categories=(wild,), unit=wild)
    found = sentence([Cause(field, wild, Expected(wild))] * 5, [field] * 9, [(field, wild)] * 9)
    assert found.isprintable()
    assert len(found) < 3000
