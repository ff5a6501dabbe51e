"""Training records to look at: as a forest and the model see them, neither of which may know them by heart."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest

from nelbo.bundle import Bundle
from nelbo.calibration import Scores
from nelbo.records import Batch, RecordDecoder, take
from nelbo.results import Result, results
from nelbo.schema import Schema
from nelbo.scoring import CHUNK, Graph, Outputs, Scorer
from nelbo.tables import open_table, read_batches
from training.data import Data
from training.facts import Suspect, SuspectFacts
from training.prior import Chosen, Exemplars, Itself
from training.split import Rows
from training.vae import VAE

N_LISTED = 20  # of small tables a tenth of the records: what a person reads through; chosen
_N_TREES = 200  # twice scikit-learn's default, for an order that a seed moves less; chosen
_MOST_DRAWN_FROM = 50_000  # records: the trees draw 200 · 256 of them
_AT_ONCE = 16_384  # records: a large table's columns would take gigabytes
_READ_ROWS = 65_536
NO_REASON = "no field by itself: its values are rare together"


class WithoutThemselves(Graph):
    """The exported graph, in which a record of the table is held against the exemplars of other records only.

    Exemplars are chosen so that odd records are among them, and a record that is one lies in its very middle: it
    looks perfectly normal. A batch's `index` says which record of the table each one is.

    Args:
        bundle: whose graph it is.
        vae: what was exported.
        records: shape (K,), positions in the table of the records that are exemplars.
        n_covered: shape (K,), as `Chosen` has it.
    """

    def __init__(self, bundle: Bundle, vae: VAE, records: Rows, n_covered: NDArray[np.float64]) -> None:
        super().__init__(bundle.schema, bundle.graph, "the exported graph")
        if not isinstance(vae.prior, Exemplars) or vae.surroundings is None:
            raise TypeError("a model without exemplars holds no record")
        self._vae, self._prior, self._surroundings = vae, vae.prior, vae.surroundings
        order = np.argsort(records)
        self._records, self._exemplar = records[order], order
        self._share = (1 - 1 / n_covered)[order]

    def run(self, batch: Batch, hidden: NDArray[np.bool_] | None = None) -> Outputs:
        """As `Graph.run`, but for the exemplars' own part in their judgement."""
        outputs = super().run(batch, hidden)
        kl, evidence = outputs.kl.copy(), outputs.evidence.copy()
        place = np.minimum(np.searchsorted(self._records, batch.index), len(self._records) - 1)
        exemplars = np.flatnonzero(self._records[place] == batch.index)
        for start in range(0, exemplars.size, CHUNK):
            rows = exemplars[start : start + CHUNK]
            shown = None if hidden is None else ~hidden[rows]
            kl[rows], evidence[rows, 1:] = self._of_others(batch, outputs, rows, place[rows], shown)
        return replace(outputs, kl=kl, evidence=evidence)

    @torch.no_grad()
    def _of_others(
        self,
        batch: Batch,
        outputs: Outputs,
        rows: NDArray[np.intp],
        place: NDArray[np.intp],
        shown: NDArray[np.bool_] | None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """KL and rarity of some records, both (m, 1), as the mixtures without each would have them."""
        vae = self._vae
        itself = Itself(torch.from_numpy(self._exemplar[place]), torch.from_numpy(self._share[place]).float())
        numbers, codes = torch.from_numpy(batch.numbers[rows]), torch.from_numpy(batch.codes[rows])
        observed = vae.observed(numbers, codes)
        seen = (observed if shown is None else observed & torch.from_numpy(shown)).float()
        mean = torch.from_numpy(outputs.latents[rows])
        kl = self._prior.kl(mean, vae.log_variance, itself)
        rarity = self._surroundings.rarity(vae.place(vae.features(numbers), vae.one_hot(codes), seen), itself)
        return kl.numpy(), rarity.numpy()


@dataclass(frozen=True)
class Judged:
    """The normal records of a table, before a person looks at them.

    Two judges look at them, for each is blind to what the other sees. Anomalies that are many, or alike, network and
    exemplars have learnt, and a forest of small samples has not; a single wrong value hardly moves a forest, and the
    model sees it at once. `benchmarks/results/contamination.md` has both alone and together.

    Attributes:
        scorer: gives scores and reasons; none of the records counts in its own judgement.
        oddness: shape (n,), of `Data.normal`, by the forest, higher = odder.
        scores: shape (n,), by the scorer.
    """

    scorer: Scorer
    oddness: Scores
    scores: Scores

    def most_suspicious(self, n: int) -> Rows:
        """Row numbers of n records: by the better of their places in two orders, the forest's first where these tie."""
        places = np.stack([_places(self.oddness), _places(self.scores)])
        return np.lexsort((places[0] > places[1], places.min(axis=0)))[:n]


def _places(values: Scores) -> Rows:
    """Each record's place in the order of a judge, 0 for the oddest, ties in the table's order."""
    places = np.empty(len(values), dtype=np.int64)
    places[np.argsort(-values, kind="stable")] = np.arange(len(values))
    return places


def judge(bundle: Bundle, vae: VAE, data: Data, chosen: Chosen | None) -> Judged:
    """What is needed to list all normal records, those of the calibration sets included.

    Args:
        bundle: of the fit.
        vae: what was exported.
        data: that was fitted.
        chosen: the exemplars among the records of the fit; None for a model without any.
    """
    graph = None
    if chosen is not None:
        records = data.normal.index[data.split.fit][chosen.records.numpy()]
        graph = WithoutThemselves(bundle, vae, records, chosen.n_covered.double().numpy())
    scorer = Scorer(bundle, graph)
    return Judged(scorer, oddness(vae, data.normal, bundle.manifest.seed), _scores(scorer, data.normal))


def _scores(scorer: Scorer, records: Batch) -> Scores:
    return _of_parts(lambda part: scorer.score(part).statistics["score"], records)


def _of_parts(judged: Callable[[Batch], Scores], records: Batch) -> Scores:
    """What is said of some records at once, of all of them, shape (n,): parts of a large table on every core."""

    def of_part(start: int) -> Scores:
        return judged(take(records, np.arange(start, min(start + _AT_ONCE, len(records)))))

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return np.concatenate(list(pool.map(of_part, range(0, len(records), _AT_ONCE))))


@torch.no_grad()
def oddness(vae: VAE, records: Batch, seed: int) -> Scores:
    """How early random cuts part each record from the others, shape (n,), higher = odder: an Isolation Forest.

    Args:
        vae: whose columns the records are cut by, none of them further out than the encoder sees.
        records: of one table.
        seed: of the forest.

    Source: Liu, Ting & Zhou, Isolation forest, ICDM 2008.
    """

    def columns(some: Batch, most: int) -> NDArray[np.float32]:
        return vae.shown_columns(*vae.read(some, most)).numpy()

    forest = IsolationForest(n_estimators=_N_TREES, random_state=seed).fit(columns(records, _MOST_DRAWN_FROM))
    return -_of_parts(lambda part: forest.score_samples(columns(part, _AT_ONCE)), records)


# --- what a person reads -------------------------------------------------------------------------------


def suspects(judged: Judged, data: Data) -> SuspectFacts:
    """The most suspicious of the records judged, with reasons, score and p-value by the scorer."""
    n = len(data.normal)
    rows = judged.most_suspicious(min(N_LISTED, max(1, n // 10)))
    wanted = data.normal.index[rows].tolist()
    found = {result.index: result for result in _results(judged.scorer, data.source, data.schema, wanted)}
    return SuspectFacts(n_judged=n, listed=[_suspect(found[record]) for record in wanted])


def _results(scorer: Scorer, source: Path, schema: Schema, wanted: list[int]) -> Iterator[Result]:
    """What is said of some records of a table, read once more: the split keeps neither ids nor rare values."""
    for batch in read_batches(open_table(source), RecordDecoder(schema, "the schema"), _READ_ROWS):
        rows = np.flatnonzero(np.isin(batch.index, wanted))
        if rows.size:
            values = {name: [column[row] for row in rows.tolist()] for name, column in batch.values.items()}
            some = replace(take(batch, rows), ids=[batch.ids[row] for row in rows.tolist()], values=values)
            scored = scorer.score(some)
            # Whoever is to look at a record wants its reason, whether it would be an alarm or not.
            alarms = replace(scored, flagged=np.ones_like(scored.flagged))
            yield from (one for one in results(scorer, alarms, "all") if isinstance(one, Result))
        if batch.index.size and batch.index[-1] >= max(wanted):
            break


def _suspect(result: Result) -> Suspect:
    return Suspect(
        record=result.index,
        id=result.id,
        score=_cut(result.score.value, 5),
        p_value=_cut(result.p_value, 4),
        reason=result.reason or NO_REASON,
    )


def _cut(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")
