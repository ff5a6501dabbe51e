import gc
import json
import shutil
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from nelbo import probe, trial
from nelbo.errors import BundleError, SchemaChangedError, StoreError, StoreWriteError, UnknownVersionError
from nelbo.probe import Limits, Probe
from nelbo.store import Store
from nelbo.verdict import Verdict
from nelbo.watch import Watch
from service import logs
from service.live import CrowdedError, Live, ModelState
from service.loading import load_scorer
from tests.bundles import normal_records, versions, write_tiny_bundle
from tests.hostile import ALL, PROBED, REPLAYED, hostile_bundle
from tests.service.conftest import ClientFactory
from tests.signing import KEY, OTHER_KEY, signed, trust_in

NEEDED = ["manifest.json", "schema.json", "score.onnx", "calibration.json", "reference.json", "golden.ndjson"]


def loaded(models: Path) -> Live:
    live = Live(Store(models), clock=lambda: 1000.0)
    live.load_all()
    return live


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_every_model_of_the_store_is_loaded(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, "pumps")
    write_tiny_bundle(tmp_path, "fans")
    live = loaded(tmp_path)
    assert (sorted(live.scorers()), live.problems()) == (["fans", "pumps"], [])
    assert [state.loaded_at for state in map(live.state, live.names()) if state] == [1000.0, 1000.0]


def test_nothing_is_ready_before_a_load(tmp_path: Path) -> None:
    assert Live(Store(tmp_path)).problems() == ["the models in NELBO_MODELS are not known yet"]


def test_an_empty_store_is_not_ready(tmp_path: Path) -> None:
    assert loaded(tmp_path).problems() == ["no model in NELBO_MODELS"]


@pytest.mark.parametrize("file", NEEDED)
def test_a_flipped_bit_keeps_the_service_from_being_ready_and_names_the_file(file: str, tmp_path: Path) -> None:
    flip_a_bit(write_tiny_bundle(tmp_path) / file)
    (problem,) = loaded(tmp_path).problems()
    assert problem.startswith("model 'pumps': bundle ")
    assert file in problem


@pytest.mark.parametrize("file", NEEDED[1:])
def test_a_missing_file_is_named(file: str, tmp_path: Path) -> None:
    (write_tiny_bundle(tmp_path) / file).unlink()
    (problem,) = loaded(tmp_path).problems()
    assert problem.endswith(f"{file} is missing")


def test_a_model_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    flip_a_bit(write_tiny_bundle(tmp_path, "fans") / "score.onnx")
    write_tiny_bundle(tmp_path, "pumps")
    live = loaded(tmp_path)
    assert list(live.scorers()) == ["pumps"]
    assert "score.onnx does not match its digest" in live.problems()[0]


def test_a_model_whose_watch_fails_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_bundle(tmp_path, "fans")
    write_tiny_bundle(tmp_path, "pumps")
    verdict = Watch.verdict

    def fails(watch: Watch, now: datetime) -> Verdict:
        if watch._bundle.name == "fans":
            raise ZeroDivisionError
        return verdict(watch, now)

    monkeypatch.setattr(Watch, "verdict", fails)
    live = loaded(tmp_path)
    assert (list(live.scorers()), live.problems()) == (
        ["pumps"],
        ["model 'fans': model 'fans' cannot be loaded: ZeroDivisionError: "],
    )


def test_a_load_that_fails_keeps_the_old_version_serving(tmp_path: Path) -> None:
    folder = write_tiny_bundle(tmp_path)
    live = loaded(tmp_path)
    before = live.scorers()["pumps"]
    flip_a_bit(folder / "calibration.json")
    live.load("pumps")
    state = live.state("pumps")
    assert state is not None
    assert (state.scorer, live.problems()) == (before, [])
    assert "calibration.json does not match its digest" in str(state.failure)


def test_a_bundle_under_another_models_name_is_refused(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, "fans")
    shutil.move(tmp_path / "fans", tmp_path / "pumps")
    assert ": the manifest says it is 'fans@" in loaded(tmp_path).problems()[0]


def test_a_version_under_another_ones_name_is_refused(tmp_path: Path) -> None:
    versions(tmp_path, "1")
    live = loaded(tmp_path)
    shutil.copytree(tmp_path / "pumps" / "1", tmp_path / "pumps" / "2")
    with pytest.raises(BundleError, match="bundle 'pumps@2': the manifest says it is 'pumps@1'"):
        live.promote("pumps", "2")
    (tmp_path / "pumps" / "aliases.json").write_text('{"live": "2"}')  # by hand
    live.follow()
    assert "it is 'pumps@1'" in str(state_of(live).failure)


def test_an_alias_that_points_nowhere_is_a_failure_of_its_model(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path)
    (tmp_path / "pumps" / "aliases.json").write_text('{"live": "2020"}')
    assert "has no version '2020'" in loaded(tmp_path).problems()[0]


def test_readiness_tells_which_bundle_is_damaged(tmp_path: Path, client_factory: ClientFactory) -> None:
    flip_a_bit(write_tiny_bundle(tmp_path) / "score.onnx")
    found = client_factory(tmp_path).get("/healthz/ready")
    assert (found.status_code, found.headers["content-type"]) == (503, "application/problem+json")
    assert found.json()["detail"] == (
        "model 'pumps': bundle 'pumps@20260302T081500Z-4f1c': score.onnx does not match its digest in the manifest; "
        "it was changed after export"
    )


# --- swaps -------------------------------------------------------------------------------------------


def served(live: Live, name: str = "pumps") -> str | None:
    return live.state(name).version if live.state(name) else None  # type: ignore[union-attr]  # asked just before


def state_of(live: Live, name: str = "pumps") -> ModelState:
    state = live.state(name)
    assert state is not None
    return state


@contextmanager
def without_collector() -> Iterator[None]:
    """What is gone in here is gone because nothing refers to it."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def test_a_reload_serves_what_is_live_now_and_says_what_did_before(tmp_path: Path) -> None:
    store = versions(tmp_path, "1", "2")
    live = loaded(tmp_path)
    store.promote("pumps", "2")
    swap = live.reload("pumps")
    assert (swap.version, swap.previous, swap.changed) == ("2", "1", True)
    assert served(live) == "2"


def test_a_reload_of_the_same_bundle_keeps_its_scorer_and_its_watch(tmp_path: Path) -> None:
    versions(tmp_path, "1")
    live = loaded(tmp_path)
    before = live.scorers()["pumps"]
    verdict = live.watches.verdict(before)
    swap = live.reload("pumps")
    assert (swap.version, swap.previous, swap.changed) == ("1", "1", False)
    assert live.scorers()["pumps"] is before
    assert live.watches.verdict(before) is verdict


def test_a_new_version_begins_a_new_watch(tmp_path: Path) -> None:
    store = versions(tmp_path, "1", "2")
    live = loaded(tmp_path)
    scorer = live.scorers()["pumps"]
    live.watches.add(scorer, scorer.score(scorer.decoder.objects(normal_records(250))))
    store.promote("pumps", "2")
    live.reload("pumps")
    counted = [live.watches.verdict(of).judgement.n_records for of in (scorer, live.scorers()["pumps"])]
    assert counted == [250, 0]


def test_a_reload_finds_a_model_that_is_new_in_the_store(tmp_path: Path) -> None:
    versions(tmp_path, "1")
    live = loaded(tmp_path)
    write_tiny_bundle(tmp_path, "fans", version="7")
    swap = live.reload("fans")
    assert (swap.version, swap.previous, swap.changed) == ("7", None, True)


def test_a_name_that_the_store_does_not_have_becomes_no_model(tmp_path: Path) -> None:
    versions(tmp_path, "1")
    live = loaded(tmp_path)
    with pytest.raises(UnknownVersionError, match="no model 'fans'"):
        live.reload("fans")
    assert (live.names(), live.n_loads("fans")["failed"]) == (["pumps"], 0)


@pytest.mark.parametrize("name", ["../pumps", "pumps@1", "", "pumps/1"])
def test_a_name_is_never_part_of_a_path(name: str, tmp_path: Path) -> None:
    versions(tmp_path, "1")
    live = loaded(tmp_path)
    with pytest.raises(UnknownVersionError):
        live.reload(name)
    with pytest.raises(UnknownVersionError):
        live.promote(name, "1")


def test_what_was_replaced_is_gone_at_once_with_all_that_it_held(tmp_path: Path) -> None:
    store = versions(tmp_path, "1", "2")
    live = loaded(tmp_path)
    scorer = live.scorers()["pumps"]
    scorer.decider.decide(0.02)
    live.watches.add(scorer, scorer.score(scorer.decoder.objects(normal_records(3))))
    parts = [weakref.ref(part) for part in (scorer, scorer.decider, scorer.decoder, scorer.bundle)]
    store.promote("pumps", "2")
    with without_collector():
        del scorer
        live.reload("pumps")
        assert [part() for part in parts] == [None] * 4
    assert live.n_in_memory("pumps") == 1


def test_never_are_more_than_two_versions_in_memory(tmp_path: Path) -> None:
    store = versions(tmp_path, "1", "2", "3")
    live = Live(Store(tmp_path), patience_s=0.05)
    live.load_all()
    in_use = live.scorers()["pumps"]  # by a request that takes long
    store.promote("pumps", "2")
    live.reload("pumps")
    assert live.n_in_memory("pumps") == 2
    store.promote("pumps", "3")
    with pytest.raises(CrowdedError, match="requests still use the version before the last"):
        live.reload("pumps")
    assert (live.n_in_memory("pumps"), served(live)) == (2, "2")
    del in_use
    live.follow()  # although nothing has changed in the store
    assert (live.n_in_memory("pumps"), served(live)) == (1, "3")


def test_a_load_waits_until_the_version_before_the_last_is_gone(tmp_path: Path) -> None:
    store = versions(tmp_path, "1", "2", "3")
    live = loaded(tmp_path)
    in_use = [live.scorers()["pumps"]]
    live.on_crowded = lambda _: in_use.clear()
    live._patience_s = 0.05
    store.promote("pumps", "2")
    live.reload("pumps")
    store.promote("pumps", "3")
    assert live.reload("pumps").version == "3"


def test_a_refused_version_is_gone_too(tmp_path: Path) -> None:
    versions(tmp_path, "1")
    live = loaded(tmp_path)
    write_tiny_bundle(tmp_path, version="2", unit="bar")
    with pytest.raises(SchemaChangedError):
        live.promote("pumps", "2")
    assert live.n_in_memory("pumps") == 1


def test_one_load_runs_at_a_time(tmp_path: Path) -> None:
    versions(tmp_path, "1")
    at_once, most = [0], [0]

    class SlowStore(Store):
        def live(self, name: str) -> Path:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
            time.sleep(0.01)
            at_once[0] -= 1
            return super().live(name)

    live = Live(SlowStore(tmp_path))
    live.load_all()
    threads = [threading.Thread(target=live.load, args=("pumps",)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (most, live.n_loads("pumps")["unchanged"]) == ([1], 5)


# --- another schema ----------------------------------------------------------------------------------


def test_another_schema_under_the_same_name_is_refused_with_both_sides_named(tmp_path: Path) -> None:
    store = versions(tmp_path, "1")
    live = loaded(tmp_path)
    write_tiny_bundle(tmp_path, version="2", unit="bar")
    store.promote("pumps", "2")
    with pytest.raises(SchemaChangedError) as info:
        live.reload("pumps")
    assert str(info.value) == (
        "'pumps@2' reads other records than 'pumps@1', which is live: "
        "'pressure': a number → a number in bar; it can be forced"
    )
    assert info.value.changes == (("pressure", "a number", "a number in bar"),)
    assert (served(live), live.n_loads("pumps")["schema-changed"]) == ("1", 1)
    assert state_of(live).failure == str(info.value)


def test_another_schema_serves_where_it_is_forced(tmp_path: Path) -> None:
    store = versions(tmp_path, "1")
    live = loaded(tmp_path)
    write_tiny_bundle(tmp_path, version="2", unit="bar")
    store.promote("pumps", "2")
    live.follow()
    assert served(live) == "1"
    assert live.reload("pumps", force=True).version == "2"


# --- promotion ---------------------------------------------------------------------------------------


def test_a_promotion_loads_first_and_then_writes_the_alias(tmp_path: Path) -> None:
    store = versions(tmp_path, "1", "2")
    live = loaded(tmp_path)
    swap = live.promote("pumps", "2")
    assert (swap.version, swap.previous, served(live)) == ("2", "1", "2")
    assert store.aliases("pumps") == {"live": "2", "previous": "1"}


def test_the_alias_previous_goes_back_and_forth(tmp_path: Path) -> None:
    store = versions(tmp_path, "1", "2")
    live = loaded(tmp_path)
    live.promote("pumps", "2")
    assert [live.promote("pumps", "previous").version for _ in range(2)] == ["1", "2"]
    assert store.aliases("pumps") == {"live": "2", "previous": "1"}


def test_a_promotion_that_fails_moves_neither_the_alias_nor_what_serves(tmp_path: Path) -> None:
    store = versions(tmp_path, "1", "2")
    live = loaded(tmp_path)
    flip_a_bit(tmp_path / "pumps" / "2" / "score.onnx")
    with pytest.raises(BundleError, match="does not match its digest"):
        live.promote("pumps", "2")
    assert (store.aliases("pumps"), served(live), live.n_loads("pumps")["failed"]) == ({"live": "1"}, "1", 1)
    assert state_of(live).failure is None  # what is live in the store is what serves


def test_a_promotion_into_a_store_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    store = versions(tmp_path, "1", "2")
    live = loaded(tmp_path)
    (tmp_path / "pumps" / ".lock").unlink()
    (tmp_path / "pumps" / ".lock").mkdir()
    with pytest.raises(StoreWriteError, match=r"model 'pumps' in .* cannot be changed: Is a directory"):
        live.promote("pumps", "2")
    assert (store.aliases("pumps"), served(live), live.n_in_memory("pumps")) == ({"live": "1"}, "1", 1)


# --- looking through the store -----------------------------------------------------------------------


def test_a_look_finds_another_live_version_and_a_new_model(tmp_path: Path) -> None:
    store = versions(tmp_path, "1", "2")
    live = loaded(tmp_path)
    store.promote("pumps", "2")
    write_tiny_bundle(tmp_path, "fans", version="7")
    live.follow()
    assert (served(live), served(live, "fans")) == ("2", "7")


def test_a_look_finds_the_newest_version_where_no_alias_says_which(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, version="1")
    live = loaded(tmp_path)
    write_tiny_bundle(tmp_path, version="2", seed=1)
    live.follow()
    assert served(live) == "2"


def test_looks_load_nothing_while_what_is_live_is_the_same(tmp_path: Path) -> None:
    versions(tmp_path, "1")
    live = loaded(tmp_path)
    live.follow()
    write_tiny_bundle(tmp_path, version="0")
    live.follow()
    assert sum(live.n_loads("pumps").values()) == 1


def test_a_refused_version_is_tried_again_only_when_its_files_have_changed(tmp_path: Path) -> None:
    store = versions(tmp_path, "1", "2")
    live = loaded(tmp_path)
    graph = tmp_path / "pumps" / "2" / "score.onnx"
    flip_a_bit(graph)
    store.promote("pumps", "2")
    for _ in range(3):
        live.follow()
    assert (served(live), live.n_loads("pumps")["failed"]) == ("1", 1)
    flip_a_bit(graph)
    live.follow()
    assert (served(live), state_of(live).failure) == ("2", None)


def test_a_version_whose_file_cannot_be_read_is_tried_at_each_look(tmp_path: Path) -> None:
    store = versions(tmp_path, "1", "2")
    live = loaded(tmp_path)
    (tmp_path / "pumps" / "2" / "score.onnx").unlink()
    store.promote("pumps", "2")
    for _ in range(3):
        live.follow()
    assert (served(live), live.n_loads("pumps")["failed"]) == ("1", 3)


def test_a_model_that_was_removed_goes_on_serving_and_says_so(tmp_path: Path) -> None:
    versions(tmp_path / "models", "1")
    live = loaded(tmp_path / "models")
    shutil.move(tmp_path / "models" / "pumps", tmp_path / "pumps")
    live.follow()
    assert (served(live), live.problems()) == ("1", [])
    assert state_of(live).failure == "model 'pumps' is no longer in the store; what was loaded goes on serving"
    shutil.move(tmp_path / "pumps", tmp_path / "models" / "pumps")
    live.follow()
    assert state_of(live).failure is None


def test_a_model_that_never_served_is_forgotten_when_it_was_removed(tmp_path: Path) -> None:
    versions(tmp_path, "1")
    flip_a_bit(write_tiny_bundle(tmp_path, "fans") / "score.onnx")
    live = loaded(tmp_path)
    assert live.problems() != []
    shutil.rmtree(tmp_path / "fans")
    live.follow()
    assert (live.names(), live.problems()) == (["pumps"], [])


def test_a_store_that_is_gone_leaves_everything_serving_and_counts_as_not_looked_at(tmp_path: Path) -> None:
    versions(tmp_path / "models", "1")
    live = loaded(tmp_path / "models")
    (tmp_path / "models").rename(tmp_path / "away")
    live.follow()
    assert (served(live), live.problems(), state_of(live).failure) == ("1", [], None)
    assert (live.unlisted(), live.looked_at()) == (f"{tmp_path / 'models'} is not there", None)
    (tmp_path / "away").rename(tmp_path / "models")
    live.follow()
    assert (live.unlisted(), live.looked_at()) == (None, 1000.0)


def test_a_store_that_is_not_there_yet_is_a_problem_until_it_is(tmp_path: Path) -> None:
    live = loaded(tmp_path / "models")
    assert live.problems() == ["NELBO_MODELS is not there"]
    versions(tmp_path / "models", "1")
    live.follow()
    assert live.problems() == []


def test_a_store_that_cannot_be_read_at_the_start_is_read_at_a_later_look(tmp_path: Path) -> None:
    versions(tmp_path, "1")
    errors = [OSError(5, "Input/output error")]

    class FailingStore(Store):
        def names(self) -> list[str]:
            if errors:
                raise errors.pop()
            return super().names()

    live = Live(FailingStore(tmp_path))
    live.load_all()
    assert live.problems() == ["NELBO_MODELS: cannot be read: Input/output error"]
    live.follow()
    assert live.problems() == []


def test_a_model_whose_folder_cannot_be_read_stops_no_other_and_is_read_at_a_later_look(tmp_path: Path) -> None:
    for name in ("fans", "pumps"):
        write_tiny_bundle(tmp_path, name, version="1")
    failing = ["fans"]

    class FailingStore(Store):
        def _versions(self, name: str) -> Iterator[str]:
            if name in failing:
                raise OSError(5, "Input/output error")
            return super()._versions(name)

    live = Live(FailingStore(tmp_path))
    live.load_all()
    assert (served(live), live.problems()) == (
        "1",
        ["model 'fans': NELBO_MODELS/fans: cannot be read: Input/output error"],
    )
    failing.clear()
    live.follow()
    assert live.problems() == []


def test_a_look_is_dated_only_where_the_store_could_be_read(tmp_path: Path) -> None:
    versions(tmp_path, "1")
    live = loaded(tmp_path)
    assert live.looked_at() is None
    live.follow()
    assert live.looked_at() == 1000.0


def test_a_look_takes_no_model_for_gone_that_was_loaded_meanwhile_for_being_new(tmp_path: Path) -> None:
    versions(tmp_path, "1")

    class Growing(Store):
        """In which a model appears, and is asked for, while it is looked through."""

        def names(self) -> list[str]:
            found = super().names()
            if "fans" not in found and live.looked_at() is not None:
                write_tiny_bundle(tmp_path, "fans", version="1")
                reload = threading.Thread(target=live.reload, args=("fans",))
                reload.start()
                reload.join(0.5)
                begun.append(reload)
            return found

    begun: list[threading.Thread] = []
    live = Live(Growing(tmp_path))
    for look in (live.load_all, live.follow, live.follow):
        look()
    begun[0].join(30)
    assert (served(live, "fans"), state_of(live, "fans").failure) == ("1", None)


def no_process() -> trial.Process:
    raise OSError(11, "Resource temporarily unavailable")


def a_killed_process() -> trial.Process:
    process = subprocess.Popen(["sleep", "60"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S607
    process.kill()
    return process


def a_late_process() -> trial.Process:
    return subprocess.Popen(["sleep", "60"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S607


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (no_process, "the probe could not be started"),
        (a_killed_process, "the probe was killed"),
        (a_late_process, "the probe was not done after 0.2 s"),
    ],
)
def test_a_version_is_probed_anew_at_the_next_look_where_a_probe_said_nothing_of_it(
    first: Callable[[], trial.Process], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that is short of memory, processors or processes will not always be."""
    versions(tmp_path, "1")
    live = Live(Store(tmp_path), probe=Probe(Limits(wall_s=0.2)))
    monkeypatch.setattr(probe, "_held", set())
    with monkeypatch.context() as patched:
        patched.setattr(trial, "start", first)
        live.load_all()
    assert reason in live.problems()[0]
    live._probe = Probe()  # with the time that one has
    live.follow()
    assert live.problems() == []


def test_a_name_that_no_model_has_is_not_kept_though_the_store_cannot_be_listed(tmp_path: Path) -> None:
    class FailingStore(Store):
        def names(self) -> list[str]:
            if self.versions("pumps"):
                raise OSError(5, "Input/output error")
            return []

    versions(tmp_path, "1")
    live = Live(FailingStore(tmp_path))
    live.load("pumps")
    for name in ('client" chosen', "pumpz", "../pumps"):
        with pytest.raises(StoreError, match="cannot be read"):
            live.reload(name)
    assert (live.names(), live.problems()) == (["pumps"], [])


def test_a_wish_for_a_version_that_is_not_there_is_no_failed_load(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    versions(tmp_path, "1")
    live = loaded(tmp_path)
    caplog.clear()
    with pytest.raises(UnknownVersionError):
        live.promote("pumps", "nelbo_secret_" + "A" * 3000)
    assert (caplog.records, live.n_loads("pumps")["failed"]) == ([], 0)


def test_a_version_that_a_call_wished_for_and_was_refused_is_logged_as_that(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    versions(tmp_path, "1", "2")
    (tmp_path / "pumps" / "2" / "score.onnx").write_bytes(b"no graph")
    live = loaded(tmp_path)
    caplog.clear()
    with pytest.raises(BundleError):
        live.promote("pumps", "2")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [("WARNING", "version refused")]
    assert (state_of(live).failure, live.n_loads("pumps")["failed"]) == (None, 1)


def test_the_log_says_when_all_is_well_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    models = tmp_path / "models"
    versions(models, "1", "2").promote("pumps", "1")
    live = loaded(models)
    for damage in (models, models / "pumps" / "aliases.json"):
        caplog.clear()
        caplog.set_level("INFO")
        kept = damage.rename(tmp_path / "away")
        if damage.name == "aliases.json":
            damage.write_text("{")
        live.follow()
        damage.unlink(missing_ok=True)
        kept.rename(damage)
        live.follow()
        live.follow()
        expected = {
            "models": ["models cannot be read", "models can be read again"],
            "aliases.json": ["model failed to load", "model serves what is live again"],
        }[damage.name]
        assert [record.getMessage() for record in caplog.records] == expected


# --- strangers' bundles ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*PROBED, *REPLAYED, "an unknown operator", "external data by a hard link", "a pipe"])
def test_a_hostile_bundle_keeps_the_old_version_serving(name: str, tmp_path: Path) -> None:
    folder = write_tiny_bundle(tmp_path)
    live = Live(Store(tmp_path), probe=Probe(Limits(cpu_s=1)))
    live.load_all()
    before = live.scorers()["pumps"]
    ALL[name].make(folder)
    live.load("pumps")
    state = live.state("pumps")
    assert state is not None
    assert (state.scorer, live.problems()) == (before, [])
    assert ALL[name].says in str(state.failure)


def test_a_name_within_a_graph_forges_no_line_of_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hostile_bundle(tmp_path, "terminal codes in a name")
    loaded(tmp_path)
    (record,) = caplog.records
    line = logs.JsonFormatter(tmp_path).format(record)
    assert json.loads(line)["event"] == "model failed to load"
    assert line.isprintable()


@pytest.mark.parametrize("name", [*PROBED, "an operator of another domain"])
def test_the_runtime_prints_nothing_of_a_hostile_graph(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = hostile_bundle(tmp_path, name)
    capfd.readouterr()
    with pytest.raises(BundleError):
        load_scorer(folder, "pumps", probe=Probe(Limits(cpu_s=1)))
    assert capfd.readouterr() == ("", "")


def test_where_keys_are_pinned_an_unsigned_version_keeps_the_signed_one_serving(tmp_path: Path) -> None:
    folder = signed(write_tiny_bundle(tmp_path))
    live = Live(Store(tmp_path), trust=trust_in(tmp_path, KEY))
    live.load_all()
    before = live.scorers()["pumps"]
    (folder / "manifest.sig").unlink()
    live.load("pumps")
    state = live.state("pumps")
    assert state is not None
    assert (state.scorer, live.problems()) == (before, [])
    assert "manifest.sig is missing" in str(state.failure)


def test_where_keys_are_pinned_a_model_of_another_key_or_too_old_is_not_ready(tmp_path: Path) -> None:
    signed(write_tiny_bundle(tmp_path, "fans"), OTHER_KEY)
    signed(write_tiny_bundle(tmp_path, "pumps"))
    live = Live(Store(tmp_path), trust=trust_in(tmp_path, KEY, pumps="20990101T000000Z-0000"))
    live.load_all()
    fans, pumps = live.problems()
    assert "which is not pinned" in fans
    assert "is older than 20990101T000000Z-0000" in pumps


def test_a_minimum_version_of_no_model_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    signed(write_tiny_bundle(tmp_path / "models"))
    live = Live(Store(tmp_path / "models"), trust=trust_in(tmp_path, KEY, pupms="20260101T000000Z-0000"))
    live.load_all()
    lines = [json.loads(logs.JsonFormatter(tmp_path).format(record)) for record in caplog.records]
    assert ("minimum version of no model", "pupms") in [(line["event"], line.get("model")) for line in lines]
    assert live.problems() == []
