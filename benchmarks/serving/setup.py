"""What every part of the benchmark starts from."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.serving.bodies import Body, bodies
from benchmarks.serving.model import peers_graph
from benchmarks.serving.process import Server
from benchmarks.serving.records import FIELDS, draw
from benchmarks.serving.rounds import Cost, compared, refusal, running
from benchmarks.serving.targets import Place, Target, programs
from nelbo.bundle import Bundle
from nelbo.scoring import Scorer

_FRESH = 1  # the seed of records that the fit has not seen


@dataclass(frozen=True)
class Setup:
    """One run.

    Attributes:
        place: of everything that programs need.
        bundle: that is served.
        rounds: that count.
        seconds: of each load.
    """

    place: Place
    bundle: Bundle
    rounds: int
    seconds: int

    @property
    def graph(self) -> Path:
        """The graph that peers serve."""
        return peers_graph(self.place.folder)

    @property
    def logs(self) -> Path:
        """Folder of what servers say."""
        return self.place.folder / "logs"

    def bodies(self, n: int) -> dict[str, Body]:
        """Fresh records in every form; a single one is typical, many come as they are, and some will be flagged."""
        records = draw(max(n, 1000), _FRESH)
        return bodies(records[[self._typical(records)]] if n == 1 else records[:n])

    def _typical(self, records: np.ndarray) -> int:
        scorer = Scorer(self.bundle)
        batch = scorer.decoder.objects([dict(zip(FIELDS, row, strict=True)) for row in records.tolist()])
        scores = scorer.score(batch).statistics["score"]
        return int(np.argsort(scores)[len(scores) // 2])

    @contextmanager
    def serving(
        self, targets: Iterable[Target], sent: Mapping[str, Body]
    ) -> Iterator[tuple[dict[str, Server], list[Target], dict[str, str]]]:
        """Everyone who is asked, started.

        Returns:
            The servers by the name of their program, the targets that answer, and why the others do not.
        """
        first: dict[str, tuple[str, Body]] = {}
        for target in targets:
            first.setdefault(target.program, (target.path, sent[target.form]))
        startable, missing = programs(self.place, first)
        with running(startable, first, self.logs) as (servers, silent):
            problems: dict[str, str] = {}
            for target in targets:
                problem = (missing | silent).get(target.program) or refusal(
                    servers[target.program], target.path, sent[target.form]
                )
                if problem:
                    problems[target.name] = problem
            yield servers, [target for target in targets if target.name not in problems], problems

    def compared(
        self, servers: Mapping[str, Server], targets: Sequence[Target], sent: Mapping[str, Body], n_connections: int
    ) -> tuple[list[Cost], dict[str, str]]:
        """What a request costs each target, and which have no cost since none of theirs was answered in a round."""
        files = self.place.folder / "bodies"
        costs = compared(servers, targets, sent, files, n_connections, self.rounds, self.seconds)
        silent = {target.name for target in targets} - {cost.name for cost in costs}
        return costs, dict.fromkeys(silent, f"no answer within {self.seconds} s at concurrency {n_connections}")
