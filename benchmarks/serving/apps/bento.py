"""BentoML around the graph. `bentoml serve bento:Score`."""

import bentoml
import numpy as np
from session import session


@bentoml.service(workers=1, traffic={"timeout": 60})
class Score:
    """One worker; `plain` runs each request for itself, `batched` those that come together as one."""

    def __init__(self) -> None:
        self._score = session()

    @bentoml.api
    def plain(self, x: np.ndarray) -> np.ndarray:
        """−ELBO."""
        return self._score(x)

    @bentoml.api(batchable=True, max_batch_size=1024, max_latency_ms=1000)
    def batched(self, x: np.ndarray) -> np.ndarray:
        """−ELBO."""
        return self._score(x)
