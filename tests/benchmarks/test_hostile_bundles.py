import json
from pathlib import Path

import pytest

from benchmarks import hostile_bundles
from benchmarks.hostile_bundles import hostile, main
from nelbo.bundle import read_bundle
from tests.hostile import READ, Hostile


def test_what_is_accepted_is_not_counted_as_refused() -> None:
    harmless = {"a loop": Hostile(READ["a loop"].make, "something else")}
    assert hostile(harmless, read_bundle) == 0
    assert hostile({"a loop": READ["a loop"]}, read_bundle) == 1


def test_run_leaves_its_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("READ", "PROBED", "REPLAYED"):
        monkeypatch.setattr(hostile_bundles, kind, {})
    assert main(["--flips", "14"], tmp_path) == 0
    found = json.loads((tmp_path / "hostile_bundles.json").read_text())
    assert found["cases"][0] == {"what": "bits flipped, all files", "refused": 14, "of": 14}
