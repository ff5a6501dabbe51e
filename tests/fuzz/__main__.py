"""Coverage-guided fuzzing of one target: `python -m tests.fuzz records --runs 2000`, or `--seconds 60`.

Ends with 0 where every input held, else with the input that did not in the folder of `--artifacts`.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["nelbo", "service", "tests.fuzz.reference"]):
    from tests.fuzz.seeds import TOKENS, seeds
    from tests.fuzz.targets import TARGETS

_LONGEST = 1 << 14  # bytes of an input; chosen
_SLOWEST_S = 20  # that one input may take
_MEMORY_MIB = 4096


def main() -> None:
    """Fuzzes until an input fails or there were enough; libFuzzer ends the process."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=0, help="of the whole, 0 for no limit")
    parser.add_argument("--runs", type=int, default=-1, help="inputs, -1 for no limit")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--artifacts", type=Path, default=Path("build/fuzz"))
    options = parser.parse_args()
    options.artifacts.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="seeds-") as folder:
        for i, seed in enumerate(seeds(options.target)):
            (Path(folder) / f"{i:04}").write_bytes(seed)
        words = Path(folder).with_suffix(".words")
        words.write_text("".join(f'"{_escaped(token)}"\n' for token in TOKENS))
        limits = [f"-runs={options.runs}", f"-max_total_time={options.seconds}", f"-seed={options.seed}"]
        limits += [f"-dict={words}", f"-max_len={_LONGEST}", f"-timeout={_SLOWEST_S}", f"-rss_limit_mb={_MEMORY_MIB}"]
        artifacts = f"-artifact_prefix={options.artifacts}/{options.target}-"
        atheris.Setup([sys.argv[0], folder, artifacts, *limits, "-print_final_stats=1"], TARGETS[options.target])
        atheris.Fuzz()


def _escaped(token: bytes) -> str:
    """As libFuzzer reads it in a dictionary."""
    return "".join(f"\\x{byte:02x}" for byte in token)


if __name__ == "__main__":
    main()
