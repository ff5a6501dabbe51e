import json
import re
from pathlib import Path

import pytest

from tests.readme import OMITTED, PAGE, ROOT, Example, Outcome, differences, examples, run_all, shown_version

TEXT = PAGE.read_text(encoding="utf-8")
EXAMPLES = examples(TEXT)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    """Of all examples, run once and in order: a later one uses the files of an earlier one."""
    version = shown_version(TEXT)
    if not (ROOT / "models" / "machines" / version).is_dir():
        pytest.fail(f"README shows answers of machines@{version}, which is not in models/: python -m tests.readme")
    return run_all(TEXT, tmp_path_factory.mktemp("readme"), version)


def numbered(language: str | None = None) -> list[int]:
    return [at for at, example in enumerate(EXAMPLES) if language in (None, example.language)]


def told(at: int) -> str:
    return EXAMPLES[at].commands.splitlines()[0]


@pytest.mark.parametrize("at", numbered(), ids=told)
def test_every_command_of_the_readme_works(at: int, outcomes: list[Outcome]) -> None:
    assert outcomes[at].status == 0, outcomes[at].errors


@pytest.mark.parametrize("at", numbered("json"), ids=told)
def test_every_answer_of_the_readme_is_the_real_one(at: int, outcomes: list[Outcome]) -> None:
    found = list(differences(json.loads(EXAMPLES[at].shown), json.loads(outcomes[at].output)))
    assert not found, "\n".join([*found, "to write the answers anew: python -m tests.readme"])


@pytest.mark.parametrize("at", numbered("text"), ids=told)
def test_every_printed_table_of_the_readme_has_the_real_rows(at: int, outcomes: list[Outcome]) -> None:
    def rows(text: str) -> list[str]:
        return [line.partition("  ")[0] for line in text.splitlines()[1:]]

    shown, real = rows(EXAMPLES[at].shown), rows(outcomes[at].output)
    assert OMITTED in shown or shown == real
    assert [row for row in real if row in shown] == [row for row in shown if row != OMITTED]


def test_the_columns_get_the_answer_of_the_records(outcomes: list[Outcome]) -> None:
    by_record, by_column = (json.loads(outcomes[at].output) for at in range(2, 4))
    for result in by_record["results"]:
        result["id"] = None  # the columns in the page have no ids
    assert by_column == by_record


def test_lines_and_csv_get_the_results_of_the_records(outcomes: list[Outcome]) -> None:
    by_record, by_line, by_csv = (outcomes[at].output for at in (2, 4, 5))
    assert [json.loads(line) for line in by_line.splitlines()] == json.loads(by_record)["results"]
    # An id of CSV is text.
    assert json.loads(re.sub(r'"UDI":"(\d+)"', r'"UDI":\1', by_csv)) == json.loads(by_record)


def test_a_block_that_nothing_runs_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing runs a block of 'python'"):
        examples("```python\nprint(1)\n```\n")


def test_an_answer_without_a_question_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing runs a block of 'json'"):
        examples("```json\n{}\n```\n")


def test_an_unknown_command_or_target_fails(tmp_path: Path) -> None:
    page = "```sh\nwget x\n```\n```sh\nmake coffee\n```\n"
    found = run_all(page, tmp_path, shown_version(TEXT))
    assert [outcome.status for outcome in found] == [127, 2]


@pytest.mark.parametrize(
    ("shown", "real"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"a": 1}, {"a": 1, "b": 2}),
        ([1, 2], [1, 2, 3]),
        ([1, 2, "…"], [1]),
        ({"a": 1.0}, {"a": 1.001}),
        ({"a": True}, {"a": 1}),
        ({"a": None}, {"a": 1.0}),
        ("ab…", "b"),
    ],
)
def test_a_changed_answer_is_noticed(shown: object, real: object) -> None:
    assert list(differences(shown, real))


@pytest.mark.parametrize(
    ("shown", "real"),
    [
        ({"a": 1, "…": "…"}, {"z": 0, "a": 1, "b": 2}),
        ([1, "…"], [1, 2, 3]),
        ({"a": 0.333333}, {"a": 1 / 3}),
        ({"a": "…"}, {"a": [1]}),
        ("ab…", "abc"),
    ],
)
def test_what_is_left_out_may_be_anything(shown: object, real: object) -> None:
    assert not list(differences(shown, real))


def test_an_example_is_its_commands_and_what_follows() -> None:
    page = "```sh\nmake test\n```\ntext\n```sh\ncat x\n```\n```json\n{}\n```\n"
    assert examples(page) == [Example("make test\n"), Example("cat x\n", "json", "{}\n")]
