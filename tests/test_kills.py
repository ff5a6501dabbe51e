"""What is left when the work on a store, or on a file of results, dies at its Nth file operation, for every N."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from nelbo.bundle import read_bundle, replace_file
from nelbo.errors import BundleError
from nelbo.store import Store
from service.loading import load_scorer
from tests.bundles import write_tiny_bundle
from tests.kills import NEW, OLD, Stores, Work, loop, names, operations
from tests.shim import Operation, Shim, counting

ROOT = Path(__file__).parents[1]
STORE = ("export", "first-export", "promote", "rollback", "prune", "load")


def found(group: str, failure: str, only: str = "") -> dict[str, list[str]]:
    """What loops over a group of works saw, in a process of their own; `make bench-kills` runs all of them."""
    command = [sys.executable, "-m", "tests.kills", group, failure, "--changes", "--only", only]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    loops = [json.loads(line) for line in run.stdout.splitlines()]
    assert loops, run.stderr[-2000:]
    problems = ("half_visible", "not_healed", "not_told")
    assert all(of["steps"][failure] > 3 for of in loops if of["loop"] != "load")
    return {of["loop"]: [problem for kind in problems for problem in of[kind]] for of in loops}


@pytest.mark.parametrize("failure", ["kill", "power"])
def test_an_export_promotion_or_removal_that_dies_at_any_step_leaves_the_last_good_version(failure: str) -> None:
    assert found("store", failure) == {name: [] for name in STORE}


def test_a_disk_that_is_full_from_any_step_on_leaves_the_last_good_version() -> None:
    assert found("store", "ENOSPC") == {name: [] for name in STORE}


def test_a_calibration_that_dies_at_any_step_leaves_the_last_good_version() -> None:
    assert found("calibrate", "kill") == {"calibrate": []}


def test_a_run_over_a_file_that_dies_at_any_step_and_again_has_each_record_once() -> None:
    assert found("score", "kill", only="parquet") == {"score-parquet": []}


# --- what power would take ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    return Stores(tmp_path_factory.mktemp("kept"))


@dataclass
class Order:
    """Operations in the order in which they were done."""

    done: list[Operation]

    def at(self, name: str, inode: int) -> list[int]:
        return [i for i, one in enumerate(self.done) if one.name.startswith(name) and one.inode == inode]

    @property
    def renames(self) -> Iterator[tuple[int, Operation]]:
        return ((i, one) for i, one in enumerate(self.done) if one.name in ("rename", "replace"))


@pytest.mark.parametrize("work", ["export", "first-export", "promote"])
def test_every_file_is_on_the_disk_before_its_name_and_the_name_before_it_is_told(work: str, stores: Stores) -> None:
    order = Order(operations(stores.works()[work]))
    written = {one.inode for one in order.done if one.name == "write"}
    renamed = [i for i, _ in order.renames]
    assert len(written) >= 1
    for inode in written:
        synced = order.at("fsync", inode)
        assert synced, "a file is not synced"
        assert order.at("write", inode)[-1] < synced[-1] < next(i for i in renamed if i > order.at("write", inode)[-1])
    for i, one in order.renames:
        folder = str(Path(one.path).parent)
        assert any(later.name == "fsync" and later.path == folder for later in order.done[i:]), folder


def test_a_new_models_folder_is_on_the_disk_too(stores: Stores) -> None:
    done = operations(stores.works()["first-export"])
    made = [Path(one.path) for one in done if one.name == "mkdir" and ".partial-" not in one.path]
    synced = {one.path for one in done if one.name == "fsync"}
    assert [path.name for path in made] == ["models", "pumps"]
    assert [str(path.parent) in synced for path in made] == [True, True]


# --- the loops themselves ----------------------------------------------------------------------------


def in_place(stores: Stores) -> Work:
    """An export as it must not be: file by file, where everybody looks."""
    export = stores.works()["export"]

    def write(root: Path) -> None:
        target = root / "models" / "pumps" / NEW
        target.mkdir(exist_ok=True)
        for path in sorted((stores.kept / "pumps" / NEW).iterdir(), key=lambda path: path.name != "manifest.json"):
            with (target / path.name).open("wb") as file:
                file.write(path.read_bytes())
        Store(root / "models").promote("pumps", NEW)

    return Work(export.prepare, write, export.check, export.is_done)


def test_the_loop_sees_what_a_careless_export_leaves(stores: Stores) -> None:
    careless = loop("careless", in_place(stores), ["kill"], reads=False)
    assert len(careless.half_visible) > 10
    assert not careless.holds


# --- leftovers ---------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model's folder with what killed processes have left in it."""
    folder = write_tiny_bundle(tmp_path, version=OLD).parent
    (folder / ".partial-20251231T000000Z-cccc-01234567").mkdir()
    (folder / ".partial-20251231T000000Z-cccc-01234567" / "score.onnx").write_bytes(b"half")
    (folder / ".partial-aliases.json-01234567").write_bytes(b"half")
    return folder


def test_the_next_export_removes_what_killed_ones_have_left(model: Path) -> None:
    write_tiny_bundle(model.parent, version=NEW)
    assert names(model) == [OLD, NEW]


def test_what_another_export_is_writing_is_left_alone(model: Path) -> None:
    left = names(model)
    with held(model):
        write_tiny_bundle(model.parent, version=NEW)
    assert names(model) == sorted([*left, NEW])


def test_a_replaced_file_removes_its_own_leftovers_and_no_others(model: Path) -> None:
    replace_file(model / "aliases.json", b"{}")
    assert names(model) == [".partial-20251231T000000Z-cccc-01234567", OLD, "aliases.json"]


def test_a_file_is_replaced_in_a_folder_that_its_caller_holds_alone(model: Path) -> None:
    with held(model, fcntl.LOCK_EX):
        replace_file(model / "aliases.json", b"{}")
    assert (model / "aliases.json").read_bytes() == b"{}"


@contextmanager
def held(folder: Path, how: int = fcntl.LOCK_SH) -> Iterator[None]:
    """As somebody holds a folder who is exporting to it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


# --- changed while it is read ------------------------------------------------------------------------


@dataclass
class Meddling(Shim):
    """Does something before the Nth operation."""

    meddle: Callable[[], object] = lambda: None

    def step(self, name: str, path: object, **_: bool) -> None:
        self.done.append(Operation(name, str(path)))
        if len(self.done) == self.at:
            with counting(Shim(self.root)):
                self.meddle()


def test_a_bundle_that_is_replaced_at_any_step_of_its_load_is_one_of_both_or_refused(tmp_path: Path) -> None:
    """Not by an export, which never changes a version, but by somebody who copies over it."""
    models, kept = tmp_path / "models", tmp_path / "kept"
    digests = {read_bundle(write_tiny_bundle(root, seed=seed)).digest for seed, root in enumerate((models, kept))}
    folder, other = models / "pumps", kept / "pumps"
    shutil.copytree(folder, tmp_path / "first")
    outcomes = set()
    for at in range(1, 200):
        shutil.copytree(tmp_path / "first", folder, dirs_exist_ok=True)
        shim = Meddling(tmp_path, at, meddle=partial(shutil.copytree, other, folder, dirs_exist_ok=True))
        try:
            with counting(shim):
                scorer = load_scorer(Store(models).live("pumps"), "pumps")
        except BundleError:
            outcomes.add("refused")
        else:
            assert scorer.bundle.digest in digests
            scorer.replay()
            outcomes.add(scorer.bundle.digest)
        if len(shim.done) < at:
            break
    assert outcomes == {*digests, "refused"}
