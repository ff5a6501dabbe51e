"""`nelbo schema`, `nelbo fit`, `nelbo calibrate`, `nelbo report`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from nelbo.cli import AsJson, Confidence, Keep, MaxFalseAlarms, Models, Per, RecordsPerS, TablePath
from nelbo.errors import SchemaError, StoreError
from nelbo.terminal import printable

if TYPE_CHECKING:
    from nelbo.bundle import Bundle
    from training.data import Label
    from training.pipeline import Outcome

# What a command does is imported inside it: torch takes seconds, and `nelbo --help` should not.

LabelColumn = Annotated[str | None, typer.Option("--label", help="Column that says which records are normal.")]
NormalValue = Annotated[str | None, typer.Option("--normal", help="Its value in normal records.")]
Rate = Annotated[float | None, typer.Option(help="False-alarm rate; 0.01, or what the records carry, if not given.")]
Fdr = Annotated[
    float | None, typer.Option(help="Where a request names nothing: the share of flagged records that may be normal.")
]
Segment = Annotated[
    str | None,
    typer.Option(metavar="FIELD", help="Judge each category of this field by calibration records of its own."),
]
_N_SUSPECTS, _ID_WIDTH = 5, 16  # a line each under what was learnt; the report lists more


def schema(
    table: TablePath,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; standard output if not given.")
    ] = None,
) -> None:
    """Infer a schema from a table, to be read and edited by hand."""
    from nelbo.bundle import replace_file
    from nelbo.inference import infer_schema
    from nelbo.tables import open_table, read_columns

    inferred = infer_schema(read_columns(open_table(table))).to_json()
    if output is None:
        typer.echo(inferred.decode(), nl=False)
    else:
        replace_file(output, inferred)
        typer.echo(f"wrote {output}; next: nelbo fit {table} --schema {output} --name NAME", err=True)


def fit(
    table: TablePath,
    name: Annotated[str, typer.Option(help="The model's name: a-z 0-9 . _ -")],
    models: Models = Path("models"),
    schema: Annotated[Path | None, typer.Option(help="A schema file; inferred if not given.")] = None,
    label: LabelColumn = None,
    normal: NormalValue = None,
    rate: Rate = None,
    confidence: Confidence = None,
    max_false_alarms: MaxFalseAlarms = None,
    per: Per = None,
    records_per_s: RecordsPerS = None,
    fdr: Fdr = None,
    segment: Segment = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file of settings.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the split and the fit.")] = 0,
    checkpoint: Annotated[
        Path | None, typer.Option(help="File to keep the fit's state in; if it exists, the fit goes on from there.")
    ] = None,
    exclude: Annotated[
        Path | None,
        typer.Option(
            help="A file that names records to leave out, a number a line. Name faults only: "
            "without odd but normal records, p-values come out too small."
        ),
    ] = None,
    keep: Keep = None,
    as_json: AsJson = False,
) -> None:
    """Fit a model to the normal records of a table and write its bundle."""
    from nelbo.intent import intent_of
    from training.config import Config, read_config
    from training.pipeline import Request, run

    intent = intent_of(
        rate=rate,
        confidence=confidence,
        max_false_alarms=max_false_alarms,
        per=per,
        records_per_s=records_per_s,
        fdr=fdr,
    )
    request = Request(
        table=table,
        name=name,
        models=models,
        schema=schema,
        label=label_of(label, normal),
        rate=intent.rate,
        confidence=intent.confidence,
        fdr=intent.fdr,
        segment=segment,
        config=Config() if config is None else read_config(config),
        seed=seed,
        checkpoint=checkpoint,
        exclude=exclude,
        keep=keep,
    )
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[loss]}"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("reading", total=None, loss="")
        outcome = run(
            request,
            progress=lambda p: bar.update(task, total=p.steps, completed=p.step, loss=f"loss {p.loss:.3f} nats"),
            stage=lambda text: bar.update(task, description=text),
            say=lambda text: bar.console.print(text, markup=False, highlight=False, soft_wrap=True),
        )
    if as_json:
        typer.echo(json.dumps(_as_json(outcome) | {"live": _is_live(outcome.folder)}))
    else:
        _print(outcome, models)


def calibrate(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A folder, or NAME[@version|@alias].")],
    table: TablePath,
    models: Models = Path("models"),
    label: LabelColumn = None,
    normal: NormalValue = None,
    rate: Rate = None,
    confidence: Confidence = None,
    max_false_alarms: MaxFalseAlarms = None,
    per: Per = None,
    records_per_s: RecordsPerS = None,
    fdr: Fdr = None,
    segment: Segment = None,
    as_json: AsJson = False,
) -> None:
    """Calibrate a bundle anew on normal records that it has not seen, without fitting it again."""
    from nelbo.bundle import read_bundle
    from nelbo.decision import Decider
    from nelbo.intent import intent_of
    from nelbo.store import find_bundle
    from training.pipeline import recalibrate

    intent = intent_of(
        rate=rate,
        confidence=confidence,
        max_false_alarms=max_false_alarms,
        per=per,
        records_per_s=records_per_s,
        fdr=fdr,
    )
    folder = find_bundle(bundle, models)
    normal_of = label_of(label, normal)
    target = recalibrate(
        read_bundle(folder),
        table,
        normal_of,
        intent.rate,
        folder.parent.parent,
        intent.confidence,
        fdr=intent.fdr,
        segment=segment,
        say=lambda text: typer.echo(printable(text), err=True),
    )
    new = read_bundle(target)
    before = Decider(read_bundle(folder).calibration).decide()
    decision = Decider(new.calibration).decide()
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "model": new.name,
                    "version": new.version,
                    "bundle": str(target),
                    "live": _is_live(target),
                    "n_calibration": decision.n_calibration,
                    "rate": decision.rate,
                    "effective_rate": decision.effective_rate,
                    "confidence": decision.confidence,
                    "fdr": new.calibration.fdr,
                    "segments": _segments_as_json(new),
                }
            )
        )
        return
    typer.echo(
        f"{new.label}: {decision.n_calibration} calibration records, effective rate {decision.effective_rate:.3%}"
    )
    typer.echo(f"true rate with 90 %: {decision.rate_low:.3%} to {decision.rate_high:.3%}")
    typer.echo(f"threshold: {before.thresholds['score']:.6g} → {decision.thresholds['score']:.6g}")
    if new.calibration.fdr is not None:
        typer.echo(
            f"where a request names nothing: a false discovery rate of {new.calibration.fdr:g}, instead of a rate"
        )
    if new.calibration.segments is not None:
        typer.echo(printable(f"segments: {_segments_in_words(new)}"))
    state = "it is live" if _is_live(target) else f"not live: nelbo promote {new.name} {new.version} --force"
    typer.echo(f"bundle: {target}; {state}")


def report(
    bundle: Annotated[str | None, typer.Argument(metavar="BUNDLE", help="A folder, or NAME[@version|@alias].")] = None,
    compare: Annotated[
        tuple[str, str] | None, typer.Option(metavar="A B", help="Two bundles, side by side on one page.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; the bundle's own page if not given.")
    ] = None,
    models: Models = Path("models"),
    as_json: AsJson = False,
) -> None:
    """Say where the report of a fit is, or write it anew; or write one of two fits side by side."""
    from nelbo.bundle import replace_file
    from training.report import PAGE, better, comparison_page, page, read_facts

    if compare is not None and bundle is None:
        first, second = (read_facts(name, models) for name in compare)
        target = output or Path(f"compare-{first.facts.label}-{second.facts.label}.html")
        replace_file(target, comparison_page(first.facts, second.facts))
        said, labels = better(first.facts, second.facts), [first.facts.label, second.facts.label]
    elif bundle is not None and compare is None:
        found = read_facts(bundle, models)
        own = found.folder / PAGE
        target = output or (own if found.has_page else Path(f"{found.facts.label}.html"))
        if target != own:
            replace_file(target, page(found.facts))
        said, labels = found.facts.headline, [found.facts.label]
    else:
        raise StoreError("nelbo report needs one BUNDLE, or --compare A B")
    if as_json:
        typer.echo(json.dumps({"bundles": labels, "report": str(target), "verdict": said}))
    else:
        typer.echo(printable(said), err=True)
        typer.echo(target)


def _is_live(folder: Path) -> bool:
    from nelbo.store import Store

    return Store(folder.parent.parent).live(folder.parent.name) == folder


def label_of(label: str | None, normal: str | None) -> "Label | None":
    """The label that two options mean together.

    Raises:
        SchemaError: one of them is given without the other.
    """
    from training.data import Label

    if (label is None) != (normal is None):
        given, needed = ("--label", "--normal") if normal is None else ("--normal", "--label")
        raise SchemaError(f"{given} needs {needed}: the column, and its value in normal records")
    return None if label is None or normal is None else Label(label, normal)


def _as_json(outcome: "Outcome") -> dict[str, Any]:
    import msgspec

    bundle = outcome.bundle
    return {
        "model": bundle.name,
        "version": bundle.version,
        "bundle": str(outcome.folder),
        "data": bundle.manifest.data,
        "rate": bundle.calibration.rate,
        "n_calibration": bundle.calibration.n,
        "fdr": bundle.calibration.fdr,
        "segments": _segments_as_json(bundle),
        "fields": [field.name for field in bundle.schema.fields],
        "warnings": list(outcome.data.warnings),
        "metrics": bundle.manifest.metrics,
        "report": str(outcome.folder / "report.html"),
        "verdict": outcome.facts.headline,
        "suspects": msgspec.to_builtins(outcome.facts.suspects.listed),
        "beside_others": outcome.facts.comparison.sentence if outcome.facts.comparison else None,
    }


def _segments_as_json(bundle: "Bundle") -> dict[str, Any] | None:
    from nelbo.decision import Decider

    segments = bundle.calibration.segments
    if segments is None:
        return None
    decider = Decider(bundle.calibration)
    own = decider.decide().segments
    return {
        "field": segments.field,
        "values": [
            {"segment": value, "n_calibration": n, "own": number in own}
            for number, (value, n) in enumerate(zip(segments.values, decider.n_of_segments, strict=True))
        ],
    }


def _segments_in_words(bundle: "Bundle") -> str:
    """Which categories are judged apart at the bundle's own rate, and what the others lack."""
    from nelbo.decision import Decider, needed

    calibration, found = bundle.calibration, _segments_as_json(bundle) or {"field": "", "values": []}
    few = [
        f"{json.dumps(value['segment'])} ({value['n_calibration']})" for value in found["values"] if not value["own"]
    ]
    n_own, n_all = len(found["values"]) - len(few), len(Decider(calibration).n_of_segments)
    text = f"{n_own} of {n_all} of '{found['field']}' are judged by records of their own"
    if not few:
        return text
    more = f" and {len(few) - 5} more" if len(few) > 5 else ""
    at_least = needed(calibration.rate, calibration.confidence)
    return f"{text}; with less than {at_least} records, by all: {', '.join(few[:5])}{more}"


def _print(outcome: "Outcome", models: Path) -> None:
    console = Console()
    table = Table(show_header=False, box=None, pad_edge=False, title_justify="left", title=outcome.bundle.label)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for row in _rows(outcome, models):
        table.add_row(*(Text(printable(cell)) for cell in row))  # Text, not markup, as below
    console.print(table)
    _print_suspects(outcome, console)


def _print_suspects(outcome: "Outcome", console: Console) -> None:
    """The first few, a line each that begins with the number, so that it can be copied into a file for --exclude."""
    from training.charts import cut
    from training.report import who

    listed = outcome.facts.suspects.listed
    some = listed[:_N_SUSPECTS]
    cells = [("record", "id", "p-value", "why")]
    cells += [(str(record.record), who(record), f"{record.p_value:.4g}", record.reason) for record in some]
    n_record, n_id, n_p_value = (max(len(row[at]) for row in cells) for at in range(3))
    n_id = 0 if listed[0].id is None else min(n_id, _ID_WIDTH) + 2
    n_judged = outcome.facts.suspects.n_judged
    title = f"training records to look at: the oddest of {n_judged}"
    console.print(Text(f"\n{title}", style="bold"))
    for record, id_, p_value, reason in cells:
        # Text, not markup: ids, names and values come from the table.
        name = f"{cut(id_, _ID_WIDTH):<{n_id}}"[:n_id]
        line = f"{record:>{n_record}}  {name}{p_value:>{n_p_value}}  {reason}"
        console.print(Text(printable(line)), no_wrap=True, overflow="ellipsis")
    where = f"the first {len(listed)} are" if len(listed) > len(some) else "they are"
    console.print(f"{where} in the report; --exclude FILE fits without those that you name")


def _rows(outcome: "Outcome", models: Path) -> list[tuple[str, str]]:
    from nelbo.decision import Decider, smallest_rate

    bundle, data = outcome.bundle, outcome.bundle.manifest.data
    decision = Decider(bundle.calibration).decide()
    kinds = [str(field.kind) for field in bundle.schema.fields]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    rows = [
        ("learnt from", f"{data['n_fit']} records, {len(kinds)} fields ({counts})"),
        ("loss", f"{outcome.losses[0][1]:.2f} → {outcome.losses[-1][1]:.2f} nats a record"),
        ("latents", outcome.latents.verdict),
        *(("note", warning) for warning in outcome.data.warnings),
        (
            "false-alarm rate",
            f"{decision.effective_rate:.3%}; given {decision.n_calibration} calibration records the true one lies "
            f"within {decision.rate_low:.2%} and {decision.rate_high:.2%} with 90 %",
        ),
        ("smallest rate", f"{smallest_rate(decision.n_calibration):.3%} with these calibration records"),
    ]
    if bundle.calibration.fdr is not None:
        rows.append(("instead", f"a false discovery rate of {bundle.calibration.fdr:g}, where a request names nothing"))
    if bundle.calibration.segments is not None:
        rows.append(("segments", _segments_in_words(bundle)))
    if outcome.evaluation is not None:
        score = outcome.evaluation["statistics"]["score"]
        rows.append(
            (
                "labelled anomalies",
                f"{outcome.evaluation['n_anomalies']}: AUROC {score['auroc']:.3f}, average precision "
                f"{score['average_precision']:.3f}, {score['power']:.1%} flagged at this rate",
            )
        )
    if outcome.facts.comparison is not None:
        rows.append(("beside others", outcome.facts.comparison.sentence))
    rows.append(("bundle", str(outcome.folder)))
    rows.append(("report", f"{outcome.folder / 'report.html'}: {outcome.facts.headline}"))
    option = "" if models == Path("models") else f" --models {models}"
    if _is_live(outcome.folder):
        rows.append(("next", f"nelbo serve{option}    or    nelbo score {bundle.name}{option} TABLE"))
    else:
        rows.append(("not live", f"nelbo promote {bundle.name} {bundle.version} --force{option}"))
    return rows
