"""How fast a fit is: its steps beside the same network's bare loop, and where a whole `nelbo fit` spends its time.

python -m benchmarks.fit_speed [TABLE --label COLUMN --normal VALUE] [--rows 1000000] [--rounds 5]

The bare loop is the fit's own loss, backward pass and Adam step on one step's tensors that lie ready: no records are
gathered, nothing is drawn, clipped, averaged or told. In a second one masks and noise, without which there is no such
loss, are drawn, each step by plain calls. Rounds are interleaved. The clock is the processor time of the process, so
that other work on the machine counts little; with a GPU it is the wall.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import torch

from benchmarks.large_table import write_table
from benchmarks.report import RESULTS, markdown_table, write_report
from nelbo.records import Batch
from training.config import Config
from training.data import Label, load
from training.fit import fit, fresh, loss
from training.layout import Layout, lay_out
from training.pipeline import Request, run
from training.steps import Step, steps
from training.vae import VAE

BAR = 0.7  # what the project asks of itself, of the bare loop without draws
_MOST_STEPS = 1_000  # of a fit that is timed: enough to make little of its beginning; chosen
_FIT, _BARE, _DRAWING = "fit", "bare loop", "bare loop that draws"

clock = time.perf_counter if torch.cuda.is_available() else time.process_time


def bare_loop(
    vae: VAE, ready: Step, config: Config, n_steps: int, change: Callable[[Step], Step] = lambda s: s
) -> None:
    """Forward, backward and optimiser step, again and again.

    Args:
        vae: to be fitted.
        ready: what every step sees.
        config: of the fit.
        n_steps: how many.
        change: what each step does to what it sees.
    """
    optimiser = torch.optim.Adam(vae.parameters(), lr=config.learning_rate, fused=True)
    for _ in range(n_steps):
        optimiser.zero_grad(set_to_none=True)
        loss(vae, change(ready), 1.0)[0].backward()  # type: ignore[no-untyped-call]  # torch's
        optimiser.step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def drawn(vae: VAE, step: Step, config: Config) -> Step:
    """A step with masks and noise of its own."""
    n, device = len(step.t), step.t.device
    rate, masked = torch.rand(n, 1, device=device) / 2, torch.rand(n, 1, device=device) < config.masked_share
    shown = step.observed * ~((torch.rand(step.observed.shape, device=device) < rate) & masked)
    noise = torch.randn(step.noise.shape, device=device) * torch.rand(n, 1, device=device)
    columns = vae.shown_columns(step.t, step.one_hot, shown)
    return replace(step, shown=shown, columns=columns, noise=noise)


def seconds(call: Callable[[], object]) -> float:
    """That a call takes, by the clock."""
    start = clock()
    call()
    return clock() - start


def rates(layout: Layout, batch: Batch, config: Config, rounds: int) -> dict[str, list[float]]:
    """Samples per second of the fit, from a table in memory to a model, and of both loops, by round."""
    n_steps = min(_MOST_STEPS, config.steps_for(len(batch)))
    config = config.model_copy(update={"steps": n_steps})
    vae = fresh(layout, batch, config, 0).to("cuda" if torch.cuda.is_available() else "cpu")
    ready = next(steps(vae, batch, config, 0, range(1)))
    timed: dict[str, Callable[[], object]] = {
        _FIT: lambda: fit(layout, batch, config, 0),
        _BARE: lambda: bare_loop(vae, ready, config, n_steps),
        _DRAWING: lambda: bare_loop(vae, ready, config, n_steps, lambda step: drawn(vae, step, config)),
    }
    n_samples = n_steps * len(ready.t)
    torch.set_num_threads(1)  # as a fit does for layers of this size
    bare_loop(vae, ready, config, n_steps // 10)
    by_round = [{name: n_samples / seconds(call) for name, call in timed.items()} for _ in range(rounds)]
    return {name: [found[name] for found in by_round] for name in timed}


def stages(request: Request, started: float) -> list[tuple[str, float, float]]:
    """Name, processor seconds and wall seconds of what a whole fit does.

    Args:
        request: what to fit.
        started: by `time.perf_counter`, when the process was, which has imported nothing before.
    """
    marks = [("importing", 0.0, started)]

    def begin(name: str) -> None:
        marks.append((name, time.process_time(), time.perf_counter()))

    begin("reading")
    run(request, stage=lambda name: begin(name) if name != "reading" else None)
    begin("")
    return [
        (name, cpu_after - cpu, wall_after - wall) for (name, cpu, wall), (_, cpu_after, wall_after) in pairwise(marks)
    ]


def in_fresh_process(request: Request) -> list[tuple[str, float, float]]:
    """`stages`, of an interpreter that has imported nothing before."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(stages, request, time.perf_counter()).result()


def measured(name: str, table: Path, label: Label | None, config: Config, rounds: int) -> tuple[dict[str, object], str]:
    """The figures of a table, and the same as text."""
    data = load(table, None, label, None, seed=0)
    batch = data.part(data.split.fit)
    found = rates(lay_out(data.schema, batch), batch, config, rounds)
    ratio = {of: median(a / b for a, b in zip(found[_FIT], found[of], strict=True)) for of in (_BARE, _DRAWING)}
    with tempfile.TemporaryDirectory() as models:
        spent = in_fresh_process(Request(table, "speed", Path(models), label=label, config=config))
    speeds = [(of, round(median(values)), f"{ratio[of]:.2f}" if of in ratio else "") for of, values in found.items()]
    total = ("in all", sum(cpu for _, cpu, _ in spent), sum(wall for _, _, wall in spent))
    rows = [(stage, f"{cpu:.1f}", f"{wall:.1f}") for stage, cpu, wall in (*spent, total)]
    text = (
        f"## {name}\n{len(batch):,} records of {len(data.schema.fields)} fields, "
        f"{config.steps_for(len(batch)):,} steps of {min(len(batch), config.batch_size)}.\n\n"
        f"{markdown_table(['what', 'samples per second', 'fit over it'], speeds)}\n\n"
        f"{markdown_table(['stage of `nelbo fit`', 'processor s', 'wall s'], rows)}"
    )
    figures: dict[str, object] = {
        "n_records": len(batch),
        "n_steps": config.steps_for(len(batch)),
        "samples_per_s": {of: [round(value, 1) for value in values] for of, values in found.items()},
        "fit_over": {of: round(value, 4) for of, value in ratio.items()},
        "stages": {stage: {"cpu_s": round(cpu, 2), "wall_s": round(wall, 2)} for stage, cpu, wall in spent},
        "passes": ratio[_BARE] >= BAR,
    }
    return figures, text


def main(arguments: Sequence[str] | None = None, results: Path = RESULTS) -> int:
    """Prints and writes the figures; 1 where a fit is slower than the bar."""
    options = _parser().parse_args(arguments)
    config, found, texts = Config(steps=options.steps), {}, []
    with tempfile.TemporaryDirectory() as folder:
        tables: list[tuple[Path, Label | None]] = [(Path(folder) / "synthetic.parquet", None)]
        write_table(tables[0][0], options.rows)
        if options.table is not None:
            label = None if options.label is None else Label(options.label, options.normal)
            tables.insert(0, (options.table, label))
        for table, label in tables:
            figures, text = measured(table.stem, table, label, config, options.rounds)
            found[table.stem] = figures
            texts.append(text)
    body = "\n\n".join((f"Median of {options.rounds} interleaved rounds.", *texts))
    print(body)
    command = f"python -m benchmarks.fit_speed --rows {options.rows} --rounds {options.rounds}"
    if options.table is not None:
        command += f" {options.table.name} --label {options.label} --normal {options.normal}"
    write_report("fit_speed", "Speed of a fit", command, {"tables": found}, body, results)
    return 0 if all(figures["passes"] for figures in found.values()) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fit_speed")
    parser.add_argument("table", type=Path, nargs="?", help="a table beside the synthetic one")
    parser.add_argument("--label", help="its label column")
    parser.add_argument("--normal", help="its value in normal records")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the synthetic table; a million if not given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="of the fit; the default's if not given")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
