"""The command `nelbo`, and those of its subcommands that need a bundle and nothing else."""

import json
import math
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nelbo.errors import BundleError, NelboError, SchemaChangedError, TrustError
from nelbo.store import find_bundle
from nelbo.terminal import complaint, printable

if TYPE_CHECKING:
    from nelbo.archive import Crew, Wish
    from nelbo.bundle import Bundle
    from nelbo.decision import Decision
    from nelbo.intent import Intent
    from nelbo.partial import Tally
    from nelbo.scoring import Scored, Scorer
    from nelbo.tables import Table
    from nelbo.trust import Trust
    from nelbo.verdict import Verdict

# Exit codes: 0 fine, 1 a finding, 2 usage or input, 3 our own mistake.
FINDING, INPUT, INTERNAL = 1, 2, 3

_EXTRAS_OF = {"training": ("training",), "service": ("service",), "nelbo": ("files", "signing")}
# What each extra brings, as it is imported. Anything else that is missing is a mistake of our own.
_FILES = frozenset({"pyarrow", "sklearn"})
_BROUGHT_BY = {
    "files": _FILES,
    "signing": frozenset({"cryptography"}),
    "service": frozenset(
        {
            "cryptography",
            "fastapi",
            "httptools",
            "prometheus_client",
            "pydantic_settings",
            "simdjson",
            "starlette",
            "uvicorn",
            "uvloop",
        }
    ),
    "training": _FILES | {"jinja2", "onnx", "onnxscript", "torch"},
}

BundleName = Annotated[str, typer.Argument(metavar="BUNDLE", help="A folder, or NAME[@version|@alias].")]
TablePath = Annotated[Path, typer.Argument(metavar="TABLE", help="CSV, Parquet or NDJSON; a record a row.")]
TablePaths = Annotated[list[Path], typer.Argument(metavar="TABLE...", help="CSV, Parquet or NDJSON; a record a row.")]
Models = Annotated[Path, typer.Option(envvar="NELBO_MODELS", help="The folder that holds models.")]
Rate = Annotated[float | None, typer.Option(help="False-alarm rate; the bundle's own if not given.")]
Confidence = Annotated[float | None, typer.Option(help="Keep the true rate below the rate with this probability.")]
MaxFalseAlarms = Annotated[float | None, typer.Option(help="Instead of a rate: so many false alarms a while.")]
Per = Annotated[str | None, typer.Option(help="That while: hour, day or week.")]
RecordsPerS = Annotated[float | None, typer.Option(help="The traffic that --max-false-alarms is meant for.")]
Fdr = Annotated[
    float | None, typer.Option(help="Instead of a rate: the share of the flagged records that may be normal.")
]
Window = Annotated[
    int | None,
    typer.Option(min=1, max=1_000_000, help="Hold --fdr in each so many records, not in the whole file: for a stream."),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help=".ndjson, .csv or .parquet; JSON lines to stdout if not given. A folder for several tables.",
    ),
]
Explained = Annotated[
    bool | None,
    typer.Option(
        "--explain/--no-explain", help="Every record, or none, instead of the flagged ones.", show_default=False
    ),
]
Jobs = Annotated[
    int | None, typer.Option("--jobs", "-j", min=1, help="Processes; as many as there are cores if not given.")
]
ModelName = Annotated[str, typer.Argument(metavar="NAME", help="The model's name.")]
Force = Annotated[bool, typer.Option("--force", help="Also where it reads other records than the live version.")]
Keep = Annotated[
    int | None,
    typer.Option(
        min=1,
        envvar="NELBO_KEEP_VERSIONS",
        help="Remove all but so many of the newest versions, none that has an alias; all stay if not given.",
    ),
]
TrustPath = Annotated[
    Path | None,
    typer.Option(
        "--trust", envvar="NELBO_TRUST", help="File of pinned keys, one of which must have signed the bundle."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def main() -> None:
    """Runs one command and turns what goes wrong into one sentence and an exit code."""
    try:
        _app()()
    except NelboError as error:
        typer.echo(complaint(str(error)), err=True)
        sys.exit(INPUT)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python would complain once more while it closes.
        sys.stdout = None
        sys.exit(INPUT)
    except OSError as error:
        # Our surroundings' fault, a full disk for example. What is left in the buffer goes nowhere either.
        sys.stdout = None
        typer.echo(complaint(f"{error.filename or 'output'}: {error.strerror or error}"), err=True)
        sys.exit(INPUT)
    except Exception:  # the edge of the process
        traceback.print_exc()
        typer.echo("nelbo: this is a mistake of nelbo's own; please report it with the lines above", err=True)
        sys.exit(INTERNAL)


def _app() -> typer.Typer:
    app = typer.Typer(
        name="nelbo",
        help="Calibrated anomaly scores for records.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(lambda: None)  # even a single command keeps its name
    for entry in sorted(entry_points(group="nelbo.commands"), key=_order):
        loaded = entry.load()
        if isinstance(loaded, typer.Typer):
            app.add_typer(loaded, name=entry.name)
        else:
            app.command(entry.name)(_command(entry))
    return app


def _order(entry: EntryPoint) -> tuple[int, str]:
    """As a newcomer needs them."""
    first = ["schema", "fit", "report", "calibrate", "sign", "verify", "promote", "rollback"]
    first += ["score", "evaluate", "drift", "serve", "keys"]
    return (first.index(entry.name) if entry.name in first else len(first), entry.name)


def _command(entry: EntryPoint) -> Callable[..., None]:
    """A command whose missing libraries are named by the extra that brings them."""
    import functools

    command: Callable[..., None] = entry.load()
    package = entry.module.partition(".")[0]

    @functools.wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            extra = next((name for name in _EXTRAS_OF[package] if missing in _BROUGHT_BY[name]), None)
            if extra is None:
                raise
            raise NelboError(f"nelbo {entry.name} needs the {extra} extra: pip install 'nelbo[{extra}]'") from error

    return guarded


def verify(
    bundle: BundleName,
    trust: TrustPath = None,
    data: Annotated[Path | None, typer.Option(help="Table that it must have been fitted or calibrated on.")] = None,
    models: Models = Path("models"),
    as_json: AsJson = False,
) -> None:
    """Check a bundle, and say where it comes from.

    Signature, digests, contents, its graph under limits, and that this machine scores its golden records as its
    exporter did. Then who signed it, which table it was fitted on, and which code fitted it.
    """
    from nelbo import provenance
    from nelbo.bundle import read_signed
    from nelbo.probe import Probe
    from nelbo.scoring import Scorer

    folder = find_bundle(bundle, models)
    try:
        read = _read(folder, trust)
        Probe().check(read)
        Scorer(read).replay()
        use = None if data is None else provenance.use_of(read, data)
    except BundleError as error:
        if as_json:
            typer.echo(json.dumps({"bundle": str(folder), "ok": False, "detail": str(error)}))
        else:
            typer.echo(complaint(str(error)), err=True)
        raise typer.Exit(FINDING) from error
    is_signed = read_signed(folder)[1] is not None
    if as_json:
        found = {"bundle": str(folder), "ok": True, "model": read.name, "version": read.version, "digest": read.digest}
        typer.echo(json.dumps(found | provenance.as_json(read, is_signed=is_signed, use=use)))
    else:
        typer.echo(f"{read.label}: {len(read.manifest.files)} files and {len(read.golden)} golden records as exported")
        for line in provenance.as_lines(read, is_signed=is_signed, use=use):
            typer.echo(printable(line))


def sign(
    bundle: Annotated[str | None, typer.Argument(metavar="BUNDLE", help="A folder, or NAME[@version|@alias].")] = None,
    key: Annotated[Path | None, typer.Option(help="File of the private key to sign with.")] = None,
    new_key: Annotated[Path | None, typer.Option(help="Make a key, in this file.")] = None,
    owner: Annotated[str, typer.Option(help="Whose the new key is, for people.")] = "",
    models: Models = Path("models"),
    as_json: AsJson = False,
) -> None:
    """Sign a bundle, or make a key to sign with: what is printed of it then is for the file of pinned keys."""
    from nelbo import signature
    from nelbo.signed import sign_bundle

    if new_key is not None and bundle is None and key is None:
        public = signature.new_key(new_key).public_key()
        pinned = {"owner": owner or "unnamed", "public_key": signature.public_text(public)}
        typer.echo(json.dumps({"keys": {signature.key_id_of(public): pinned}}, indent=None if as_json else 1))
        return
    if bundle is None or key is None or new_key is not None:
        raise TrustError("expected BUNDLE and --key FILE to sign, or --new-key FILE alone to make a key")
    folder = find_bundle(bundle, models)
    signed = sign_bundle(folder, signature.read_key(key))
    if as_json:
        typer.echo(json.dumps({"bundle": str(folder), "key_id": signed.key_id}))
    else:
        typer.echo(f"{folder}: signed with the key {signed.key_id}")


def promote(
    name: ModelName,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="The version to make live, or an alias of it.")],
    models: Models = Path("models"),
    force: Force = False,
    keep: Keep = None,
    trust: TrustPath = None,
    as_json: AsJson = False,
) -> None:
    """Make a version the live one, once it has been verified. A running service takes it by itself."""
    _promote(name, version, models, force=force, keep=keep, trust=trust, as_json=as_json)


def rollback(
    name: ModelName,
    models: Models = Path("models"),
    force: Force = False,
    trust: TrustPath = None,
    as_json: AsJson = False,
) -> None:
    """Go back to the version that was live before; once more, and nothing has changed."""
    from nelbo.store import PREVIOUS

    _promote(name, PREVIOUS, models, force=force, keep=None, trust=trust, as_json=as_json)


def _promote(
    name: str, version: str, models: Path, *, force: bool, keep: int | None, trust: Path | None, as_json: bool
) -> None:
    from dataclasses import asdict

    from nelbo.promotion import promote as promoted
    from nelbo.store import Store

    try:
        found = promoted(Store(models), name, version, force=force, keep=keep, trust=_trust(trust))
    except (BundleError, SchemaChangedError) as error:
        if not as_json:
            typer.echo(complaint(str(error)), err=True)
        else:
            columns = error.changes if isinstance(error, SchemaChangedError) else ()
            changes = [{"column": column, "before": before, "after": after} for column, before, after in columns]
            typer.echo(json.dumps({"name": name, "ok": False, "detail": str(error), "changes": changes}))
        raise typer.Exit(FINDING) from error
    if as_json:
        typer.echo(json.dumps({"ok": True, **asdict(found)}))
        return
    back = f"; nelbo rollback {name} goes back to {found.previous}" if found.previous else ""
    typer.echo(f"{name}@{found.version} {'is live' if found.changed else 'was live already'}{back}")
    if found.removed:
        typer.echo(f"removed: {', '.join(found.removed)}")


def score(
    bundle: BundleName,
    tables: TablePaths,
    output: Output = None,
    rate: Rate = None,
    confidence: Confidence = None,
    max_false_alarms: MaxFalseAlarms = None,
    per: Per = None,
    records_per_s: RecordsPerS = None,
    fdr: Fdr = None,
    window: Window = None,
    explain: Explained = None,
    jobs: Jobs = None,
    trust: TrustPath = None,
    models: Models = Path("models"),
    as_json: AsJson = False,
) -> None:
    """Score the records of files. A run that was killed goes on where it stopped when it is started again."""
    from nelbo.archive import Crew, Wish, check
    from nelbo.intent import Intent, intent_of
    from nelbo.resources import read_resources
    from nelbo.tables import open_table

    intent = intent_of(
        rate=rate,
        confidence=confidence,
        max_false_alarms=max_false_alarms,
        per=per,
        records_per_s=records_per_s,
        fdr=fdr,
    )
    scorer = _scorer(bundle, models, trust)
    intent = scorer.decider.intent if intent == Intent() else intent
    _refuse_window(window, intent)
    wish = Wish(intent, window, "flagged" if explain is None else "all" if explain else "none")
    opened, outputs = [open_table(table) for table in tables], _outputs(tables, output)
    for table in opened:
        check(scorer, table)
    n_faulty = 0
    with _Meter(opened) as meter, Crew(scorer, jobs or read_resources().whole_processors) as crew:
        for to, tally, decision in _all_scored(crew, opened, outputs, wish, meter, is_remembered=outputs != [output]):
            n_faulty += tally.n_faulty
            if as_json and to is not None:
                named = {} if to == output else {"output": str(to)}
                typer.echo(json.dumps(named | _summary(scorer, tally, decision, wish)))
            else:
                end = f"; wrote {to}" if to else ""
                meter.say(f"{tally.n} records in {meter.lap()}: {_counted(tally, decision, wish)}{end}")
            if intent.fdr is not None and tally.n_flagged == 0:
                meter.say(_too_few_for(intent.fdr, scorer.decider.n, window or tally.n))
    if n_faulty:
        raise typer.Exit(FINDING)


def _all_scored(
    crew: "Crew",
    tables: "Sequence[Table]",
    outputs: Sequence[Path],
    wish: "Wish",
    meter: "_Meter",
    *,
    is_remembered: bool,
) -> Iterator[tuple[Path | None, "Tally", "Decision | None"]]:
    from nelbo.archive import score_tables, score_to

    if outputs:
        yield from score_tables(crew, tables, outputs, wish, meter, is_remembered=is_remembered)
    else:
        yield None, *score_to(crew, tables[0], sys.stdout.buffer, wish, meter)


def _outputs(tables: Sequence[Path], output: Path | None) -> list[Path]:
    """The file for each table's results: the one named, or one in the folder named, in the table's own format."""
    from nelbo.errors import TableError

    if output is None or (len(tables) == 1 and not output.is_dir()):
        if len(tables) > 1:
            raise TableError(f"expected -o FOLDER for the results of {len(tables)} tables, got none")
        return [output] if output else []
    if output.is_file():
        raise TableError(f"{output}: expected a folder for the results of {len(tables)} tables, got a file")
    output.mkdir(parents=True, exist_ok=True)
    found: dict[Path, Path] = {}
    for table in tables:
        suffix = table.suffix.lower()
        to = output / (table.stem + (".csv" if suffix == ".tsv" else suffix))
        if to in found:
            raise TableError(f"{table}: its results would have the same name as those of {found[to]}, {to}")
        if to.resolve() == table.resolve():
            raise TableError(f"{table}: expected another folder for its results, got its own")
        found[to] = table
    return list(found)


def _counted(tally: "Tally", decision: "Decision | None", wish: "Wish") -> str:
    by_which = _by_which(decision, wish.intent, wish.window)
    return f"{tally.n_flagged} flagged {by_which}, {tally.n_faulty} could not be scored"


def _summary(scorer: "Scorer", tally: "Tally", decision: "Decision | None", wish: "Wish") -> dict[str, Any]:
    import msgspec

    from nelbo.results import decision_answer

    return {
        "model": scorer.bundle.name,
        "version": scorer.bundle.version,
        "n": tally.n,
        "n_flagged": tally.n_flagged,
        "n_faulty": tally.n_faulty,
        "window": wish.window,
        "fdr": wish.intent.fdr,
        "decision": None
        if decision is None
        else msgspec.to_builtins(decision_answer(scorer, decision, tally.segments)),
    }


class _Meter:
    """How far a run is, on stderr, where somebody watches.

    Args:
        tables: that it is over.
    """

    def __init__(self, tables: "Sequence[Table]") -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
        console = Console(stderr=True)
        # Where nobody watches, a bar would still leave an empty line.
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._n_bytes = sum(table.n_bytes for table in tables)
        self._task = self._bar.add_task("", total=float(self._n_bytes), rate="")
        self._done: dict[Path, float] = {}  # bytes
        self._start = self._lap = time.perf_counter()
        self._n = self._n_at_lap = 0

    def __enter__(self) -> "_Meter":
        self._bar.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._bar.stop()

    def report(self, table: "Table", fraction: float, n_records: int) -> None:
        """A part of a table is done."""
        self._done[table.path] = fraction * table.n_bytes
        self._n += n_records
        rate = f"{self._n / (time.perf_counter() - self._start):,.0f} records/s" if self._n else ""
        self._bar.update(self._task, completed=sum(self._done.values()), rate=rate)

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._bar.console.print(printable(text), markup=False, highlight=False, emoji=False, soft_wrap=True)

    def lap(self) -> str:
        """Time since the last one, and how fast records were scored meanwhile."""
        now = time.perf_counter()
        seconds, n = now - self._lap, self._n - self._n_at_lap
        self._lap, self._n_at_lap = now, self._n
        return f"{seconds:.1f} s ({n / max(seconds, 1e-9):,.0f}/s)"


def _refuse_window(window: int | None, intent: "Intent") -> None:
    if window is not None and intent.fdr is None:
        from nelbo.errors import IntentError

        raise IntentError("window", "it beside a false discovery rate", "none")


def _too_few_for(fdr: float, n_calibration: int, n: int) -> str:
    """What a false discovery rate needs before it flags anything: no p-value is below 1 / (n + 1)."""
    at_least = math.ceil(n / ((n_calibration + 1) * fdr))
    return (
        f"with {n_calibration:,} calibration records, at least {at_least:,} of {n:,} records must stand out together "
        f"before any is flagged at a false discovery rate of {fdr:g}"
    )


def _by_which(decision: "Decision | None", intent: "Intent", window: int | None) -> str:
    if decision is None:
        return f"at a false discovery rate of {intent.fdr:g} in each {window:,} records"
    if decision.fdr is not None:
        return f"at a false discovery rate of {decision.fdr:g}"
    beyond = ", extrapolated" if decision.mode == "extrapolated" else ""
    return f"at an effective rate of {decision.effective_rate:.3g}{beyond}"


def evaluate(
    bundle: BundleName,
    table: TablePath,
    label: Annotated[str, typer.Option(help="Column that says which records are normal.")],
    normal: Annotated[str, typer.Option(help="Its value in normal records.")],
    rate: Rate = None,
    trust: TrustPath = None,
    models: Models = Path("models"),
    as_json: AsJson = False,
) -> None:
    """Measure a bundle against a table with labels."""
    import numpy as np

    from nelbo.calibration import STATISTICS
    from nelbo.evaluation import evaluate as evaluation_of
    from nelbo.tables import labels, open_table

    scorer = _scorer(bundle, models, trust)
    labelled = labels(open_table(table), label, normal)
    decision = scorer.decider.decide(rate)
    parts = list(_scored(scorer, table, decision, ignored=(label,)))
    statistics = {name: np.concatenate([part.statistics[name] for part in parts]) for name in STATISTICS}
    index = np.concatenate([part.batch.index for part in parts])
    is_anomaly, is_normal = labelled.is_anomaly[index], labelled.is_normal[index]
    is_labelled = is_anomaly | is_normal
    segments = np.concatenate([part.segments for part in parts])[is_labelled]
    statistics = {name: values[is_labelled] for name, values in statistics.items()}
    n_faulty = sum(len(part.batch.errors) for part in parts)
    found = evaluation_of(statistics, decision, segments, is_anomaly[is_labelled])
    if as_json:
        typer.echo(json.dumps(found))
    else:
        _print_evaluation(scorer, dict(found))
    if not is_labelled.all():
        typer.echo(f"{int((~is_labelled).sum())} records have no label and are left out", err=True)
    if n_faulty:
        typer.echo(f"{n_faulty} records could not be scored and are left out", err=True)
        raise typer.Exit(FINDING)


def drift(
    bundle: BundleName,
    table: TablePath,
    trust: TrustPath = None,
    models: Models = Path("models"),
    as_json: AsJson = False,
) -> None:
    """Say whether the records of a file still look like those that a bundle was fitted on."""
    from datetime import UTC, datetime

    import numpy as np

    from nelbo.judgement import BUDGET_MARTINGALE, judge
    from nelbo.martingale import Martingale
    from nelbo.verdict import verdict
    from nelbo.window import Window

    scorer = _scorer(bundle, models, trust)
    decision = scorer.decider.decide()
    window = Window(scorer.schema, scorer.bundle.reference, decision)
    calibration_scores = scorer.decider.calibrations["score"].scores
    # The same file gets the same answer: its seed is fixed.
    martingale = Martingale(calibration_scores, np.random.default_rng(0), BUDGET_MARTINGALE)
    n_faulty = 0
    for scored in _scored(scorer, table, decision):
        window.add(scored)
        martingale.add(scored.statistics["score"])
        n_faulty += len(scored.batch.errors)
    names = (shlex.quote(bundle), shlex.quote(str(table)))
    is_uniform = martingale.p_value >= BUDGET_MARTINGALE
    found = verdict(scorer.bundle, judge(window), is_uniform, datetime.now(UTC), names)
    if as_json:
        typer.echo(json.dumps(_drift_as_json(scorer, found, martingale.p_value, n_faulty)))
    else:
        _print_drift(scorer, found)
    if n_faulty:
        typer.echo(f"{n_faulty} records could not be scored and are left out", err=True)
    if found.state != "fresh":
        raise typer.Exit(FINDING)


def _scorer(bundle: str, models: Path, trust: Path | None) -> "Scorer":
    from nelbo.scoring import Scorer

    scorer = Scorer(_read(find_bundle(bundle, models), trust))
    scorer.replay()
    return scorer


def _read(folder: Path, trust: Path | None) -> "Bundle":
    from nelbo.bundle import read_bundle

    return read_bundle(folder, _trust(trust))


def _trust(path: Path | None) -> "Trust | None":
    """Whose bundles are read; None for anybody's."""
    if path is None:
        return None
    from nelbo.trust import read_trust

    return read_trust(path)


def _scored(scorer: "Scorer", path: Path, decision: "Decision", ignored: tuple[str, ...] = ()) -> Iterator["Scored"]:
    """The records of a file, scored batch by batch, with progress on stderr."""
    from nelbo.tables import open_table, read_batches

    table = open_table(path)
    with _Meter([table]) as meter:
        fractions = [0.0]
        for batch in read_batches(table, scorer.decoder, 8192, fractions.append, ignored=ignored):
            yield scorer.score(batch, decision)
            meter.report(table, fractions[-1], batch.n_records)


def _print_evaluation(scorer: "Scorer", found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"{scorer.bundle.label}: {found['n']} records, {found['n_anomalies']} anomalies"
    table = Table(title=title, title_justify="left")
    table.add_column("statistic", no_wrap=True)
    for heading in ("AUROC", "average precision", "F1", f"realised rate at {found['rate']:g}", "power"):
        table.add_column(heading, justify="right")
    for name, row in found["statistics"].items():
        table.add_row(name, *(f"{value:.4f}" for value in row.values()))
    Console().print(table)


def _drift_as_json(scorer: "Scorer", found: "Verdict", p_uniform: float, n_faulty: int) -> dict[str, Any]:
    from dataclasses import asdict

    judgement = found.judgement
    return {
        "model": scorer.bundle.name,
        "version": scorer.bundle.version,
        "state": found.state,
        "reason": found.reason,
        "next_command": found.next_command,
        "n_records": judgement.n_records,
        "n_faulty": n_faulty,
        "age_days": round(found.age_days, 1),
        "uniform": {"p_value": p_uniform, "is_uniform": found.is_uniform},
        "flagged": asdict(judgement.flagged),
        "fields": [{k: v for k, v in asdict(field).items() if k != "evidence"} for field in judgement.fields],
    }


def _print_drift(scorer: "Scorer", found: "Verdict") -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    judgement = found.judgement
    n_fit = scorer.bundle.reference.n_records
    typer.echo(f"{scorer.bundle.label}: {judgement.n_records} records against {n_fit} of the fit")
    # Few columns, so that names of fields have room in 80 characters; --json has the others.
    table = Table(box=None, pad_edge=False)
    table.add_column("field", overflow="ellipsis", no_wrap=True)
    for heading in ("PSI", "JS", "p", "missing", "unseen"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("changed", no_wrap=True)
    for field in judgement.fields:
        numbers = (f"{value:.3f}" for value in (field.psi, field.js))
        rates = (f"{value:.2%}" for value in (field.missing, field.unseen))
        table.add_row(
            escape(printable(field.field)), *numbers, f"{field.p_value:.2g}", *rates, ", ".join(field.changes)
        )
    Console().print(table)
    flagged = judgement.flagged
    typer.echo(f"flagged: {flagged.rate:.2%}, expected {flagged.expected:.2%}, p = {flagged.p_value:.2g}")
    typer.echo(printable(f"{found.state}: {found.reason}"))
    if found.next_command is not None:
        typer.echo(printable(f"next: {found.next_command}"))
