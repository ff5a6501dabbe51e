import hashlib
from pathlib import Path

import pytest

from supply.pins import Pin, read_pins

DIGEST = hashlib.sha256(b"a wheel").hexdigest()
OTHER = hashlib.sha256(b"another wheel").hexdigest()


def pins(folder: Path, text: str) -> dict[str, Pin]:
    path = folder / "lock.txt"
    path.write_text(text, encoding="utf-8")
    return read_pins(path)


def test_a_pin_has_the_name_that_the_index_gives_it_and_all_its_digests(tmp_path: Path) -> None:
    found = pins(
        tmp_path, f"# why\n\nZope.Event_X==6.2 \\\n    --hash=sha256:{DIGEST} \\\n    --hash=sha256:{OTHER}\nb==1\n"
    )
    assert found == {
        "zope-event-x": Pin("zope-event-x", "6.2", frozenset({DIGEST, OTHER})),
        "b": Pin("b", "1"),
    }


def test_a_marker_is_no_part_of_the_version(tmp_path: Path) -> None:
    assert pins(tmp_path, "uvloop==0.23.0 ; sys_platform != 'win32'\n")["uvloop"].version == "0.23.0"


@pytest.mark.parametrize(
    "line", ["numpy>=2", "numpy", "--index-url https://example.org", "numpy @ file:///numpy.whl", "-r other.txt"]
)
def test_a_line_that_pins_nothing_is_refused_by_its_text(tmp_path: Path, line: str) -> None:
    with pytest.raises(ValueError, match=r"lock\.txt: expected NAME==VERSION, got '") as caught:
        pins(tmp_path, f"a==1\n{line}\n")
    assert repr(line) in str(caught.value)
