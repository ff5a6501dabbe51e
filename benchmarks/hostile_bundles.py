"""What becomes of bundles that were changed, forged, rolled back or made to do harm: all are to be refused by name.

python -m benchmarks.hostile_bundles [--flips 400]
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.report import RESULTS, markdown_table, write_report
from nelbo.bundle import read_bundle
from nelbo.errors import BundleError
from nelbo.probe import Limits, Probe
from nelbo.scoring import Scorer
from nelbo.trust import Trust
from tests.bundles import write_tiny_bundle
from tests.hostile import PROBED, READ, REPLAYED, Hostile, hostile_bundle, resealed
from tests.signing import KEY, OTHER_KEY, signed, trust_in

_SEED = 20261125


def flips(bundle: Path, trust: Trust, n: int) -> int:
    """How many of n flips of a bit, as many in each file, are refused by the file's name."""
    rng = np.random.default_rng(_SEED)
    paths, scratch = sorted(bundle.iterdir()), bundle.parent / "flipped"
    n_refused = 0
    for i in range(n):
        shutil.copytree(bundle, scratch)
        path = scratch / paths[i % len(paths)].name
        data = bytearray(path.read_bytes())
        at = int(rng.integers(8 * len(data)))
        data[at // 8] ^= 1 << (at % 8)
        path.write_bytes(data)
        n_refused += path.name in (_refusal(lambda: read_bundle(scratch, trust)) or "")
        shutil.rmtree(scratch)
    return n_refused


def hostile(kind: dict[str, Hostile], load: Callable[[Path], object]) -> int:
    """How many of these are refused by what they should be."""
    n_refused = 0
    for name, made in kind.items():
        with tempfile.TemporaryDirectory() as folder:
            bundle = hostile_bundle(Path(folder), name)
            text = _refusal(partial(load, bundle)) or "accepted"
            n_refused += made.says in text
            print(f"{name}: {text[:160]}", flush=True)
    return n_refused


def _refusal(load: Callable[[], object]) -> str | None:
    try:
        load()
    except BundleError as error:
        return str(error)
    return None


def _probed(bundle: Path) -> None:
    read = read_bundle(bundle)
    Probe(Limits(cpu_s=2)).check(read)
    Scorer(read).replay()


def main(arguments: Sequence[str] | None = None, results: Path = RESULTS) -> int:
    """Prints each refusal and the counts; 1 where something was not refused."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile_bundles")
    parser.add_argument("--flips", type=int, default=400)
    n = parser.parse_args(arguments).flips
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = signed(write_tiny_bundle(folder))
        trust = trust_in(folder, KEY)
        read_bundle(bundle, trust)
        old = trust_in(folder, KEY, pumps="20990101T000000Z-0000")
        cases = [("bits flipped, all files", flips(bundle, trust, n), n)]
        cases.append(("rolled back", int("is older than" in (_refusal(lambda: read_bundle(bundle, old)) or "")), 1))
        signed(bundle, OTHER_KEY)
        cases.append(("wrong key", int("is not pinned" in (_refusal(lambda: read_bundle(bundle, trust)) or "")), 1))
        signed(bundle)
        resealed(bundle, lambda manifest: manifest.update(seed=1))
        cases.append(("forged", int("no signature" in (_refusal(lambda: read_bundle(bundle, trust)) or "")), 1))
    cases.append(("hostile, refused before the graph is loaded", hostile(READ, read_bundle), len(READ)))
    cases.append(("hostile, refused by the probe", hostile(PROBED, _probed), len(PROBED)))
    cases.append(("hostile, refused by the golden records", hostile(REPLAYED, _probed), len(REPLAYED)))
    passes = all(n_refused == n_made for _, n_refused, n_made in cases)
    n_hostile = len(READ) + len(PROBED) + len(REPLAYED)
    sentence = f"{n} flipped bits, {n_hostile} hostile bundles (asked for: 15): {'passes' if passes else 'FAILS'}."
    body = f"{sentence}\n\n{markdown_table(['what', 'refused', 'of'], cases)}"
    print(body)
    found = {"passes": passes, "cases": [{"what": what, "refused": k, "of": of} for what, k, of in cases]}
    command = f"python -m benchmarks.hostile_bundles --flips {n}"
    write_report("hostile_bundles", "Bundles that are refused", command, found, body, results)
    return 0 if passes else 1


if __name__ == "__main__":
    raise SystemExit(main())
