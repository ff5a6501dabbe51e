"""A bundle becomes a scorer that may serve: verified, probed, replayed and warmed before it does."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from nelbo.errors import BundleError, NelboError
from nelbo.probe import Probe
from nelbo.promotion import verified
from nelbo.records import take
from nelbo.results import results
from nelbo.scoring import CHUNK, Scorer
from nelbo.watch import Watch

if TYPE_CHECKING:
    from nelbo.trust import Trust


def load_scorer(folder: Path, name: str, trust: "Trust | None" = None, probe: Probe | None = None) -> Scorer:
    """A scorer that may serve: read and verified, its graph probed, golden records replayed, warm.

    Args:
        folder: of the bundle.
        name: what the store calls the model.
        trust: whose bundles may be loaded; None for anybody's.
        probe: what the graph must pass first; None for one of its own.

    Raises:
        BundleError: the bundle is damaged, of another model or version, or scores differently here.
    """
    try:
        scorer = verified(folder, name, trust, probe or Probe())
        _warm_up(scorer)
        return scorer
    except NelboError:
        raise
    except Exception as error:  # the files are a stranger's, and onnxruntime raises what it likes about them
        raise BundleError(f"model '{name}' cannot be loaded: {type(error).__name__}: {error}") from error


def _warm_up(scorer: Scorer) -> None:
    """Runs what the first request would otherwise be the first to run."""
    body = msgspec.json.encode({"records": [scorer.bundle.golden[0].record]})
    batch, _ = scorer.decoder.together([body, body], max_records=1)
    results(scorer, scorer.score(batch), "all")
    scored = scorer.score(take(batch, np.zeros(CHUNK, dtype=np.intp)))  # the memory of a whole chunk
    watch = Watch(scorer, np.random.default_rng(0))
    watch.add(scored)
    watch.verdict(datetime.now(UTC))  # as many records as a judgement needs
