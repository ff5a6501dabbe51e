import json
import re
from pathlib import Path

from service.v2.envelope import OUTPUTS
from tests.readme import PAGE, PROTOCOL, differences, examples, run_all, shown_version

TEXT = PROTOCOL.read_text(encoding="utf-8")


def test_every_answer_of_the_page_is_the_real_one(tmp_path: Path) -> None:
    outcomes = run_all(TEXT, tmp_path, shown_version(PAGE.read_text(encoding="utf-8")))
    assert [outcome.status for outcome in outcomes] == [0]
    shown = [json.loads(example.shown) for example in examples(TEXT)]
    found = list(differences(shown, [json.loads(outcome.output) for outcome in outcomes]))
    assert not found, "\n".join([*found, "to write the answers anew: python -m tests.readme"])


def test_every_output_is_documented_with_its_datatype() -> None:
    assert dict(re.findall(r"^\| `(\w+)` \| `(\w+)` `\[", TEXT, re.MULTILINE)) == OUTPUTS
