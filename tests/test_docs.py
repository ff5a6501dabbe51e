"""What the pages say of the code, held against the code."""

import re
from pathlib import Path

import pytest

from nelbo.schema import parse_schema
from nelbo.store import Store
from nelbo.trust import read_trust
from service.live import Live
from service.metrics import OUTCOMES, REASONS, STAGES, Metrics
from service.settings import PREFIX, Settings
from tests import reliability

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "models/*.md", "deploy/**/*.md", "benchmarks/**/*.md")
    for page in ROOT.glob(pattern)
)
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_SUFFIX = {"counter": "_total", "info": "_info"}


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def rows(page: Path) -> dict[str, list[str]]:
    """The cells of every table row of a page, by the name in the first one."""
    lines = (line for line in text(page).splitlines() if line.startswith("| `"))
    cells = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {row[0].strip("`"): row[1:] for row in cells}


def as_written(default: object) -> str:
    """A default as the page shows it: what an operator would write to have the same."""
    if default is None:
        return "not set"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def test_each_setting_is_documented_with_its_default() -> None:
    expected = {f"{PREFIX}{name.upper()}": as_written(field.default) for name, field in Settings.model_fields.items()}
    assert {name: cells[0] for name, cells in rows(DOCS / "settings.md").items()} == expected


def test_who_sets_every_documented_default_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"{PREFIX}{name.upper()}", raising=False)
    defaults = Settings().model_dump()
    for name, (default, *_) in rows(DOCS / "settings.md").items():
        if default != "not set":
            monkeypatch.setenv(name, default.strip("`"))
    assert Settings().model_dump() == defaults


def test_each_metric_is_documented_and_no_other(tmp_path: Path) -> None:
    exported = {family.name + _SUFFIX.get(family.type, "") for family in Metrics(Live(Store(tmp_path))).collect()}
    assert set(rows(DOCS / "metrics.md")) == exported


@pytest.mark.parametrize(
    ("metric", "values"),
    [
        ("nelbo_records_scored_total", OUTCOMES),
        ("nelbo_record_errors_total", REASONS),
        ("nelbo_stage_duration_seconds", STAGES),
    ],
)
def test_each_value_of_a_closed_label_is_documented(metric: str, values: tuple[str, ...]) -> None:
    description = rows(DOCS / "metrics.md")[metric][1]
    assert [value for value in values if f"`{value}`" not in description] == []


def test_the_schema_in_the_page_on_records_is_one() -> None:
    page = text(DOCS / "records.md")
    block = page[page.index("```json\n") + 8 :].partition("```")[0]
    assert [field.name for field in parse_schema(block.encode(), "records.md").fields] == [
        "Type",
        "Torque [Nm]",
        "note",
    ]


def test_the_trust_file_in_the_page_on_bundles_is_one(tmp_path: Path) -> None:
    (block,) = re.findall(r"```json\n(.*?)```", text(DOCS / "bundles.md"), re.DOTALL)
    (tmp_path / "trust.json").write_text(block)
    read_trust(tmp_path / "trust.json").check_version("pumps", "20260302T081500Z-4f1c")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    targets = [target for target in _LINK.findall(text(page)) if "://" not in target]
    assert [target for target in targets if not leads_somewhere(page, target)] == []


def leads_somewhere(page: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    there = page.parent / path if path else page
    return there.exists() and (not anchor or anchor in anchors(there))


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_each_fault_has_tests_that_are_there() -> None:
    page = text(reliability.PAGE)
    faults, targets = reliability.faults(page), reliability.targets(page)
    assert len(faults) >= 30
    assert [fault for fault, tests in faults.items() if not tests] == []
    assert {test: path for test, path in targets.items() if not test.startswith(f"{path}::")} == {}
    missing = [
        test for test in targets if not re.search(rf"def {test.partition('::')[2]}\(", text(ROOT / targets[test]))
    ]
    assert missing == []


def test_a_link_to_nowhere_is_noticed() -> None:
    page = ROOT / "README.md"
    assert not leads_somewhere(page, "docs/nowhere.md")
    assert not leads_somewhere(page, "#nowhere")
