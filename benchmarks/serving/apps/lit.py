"""LitServe around the graph. `python lit.py PORT`."""

import sys

import litserve
from session import session


class Score(litserve.LitAPI):
    """One worker, a request at a time."""

    def setup(self, device):  # noqa: ARG002 the framework names its arguments
        """Loads the graph."""
        self._score = session()

    def decode_request(self, request):
        """The records of {"x": [[…], …]}."""
        return request["x"]

    def predict(self, x):
        """−ELBO."""
        return self._score(x)

    def encode_response(self, output):
        """As JSON."""
        return {"scores": output.tolist(), "flags": (output > 100.0).tolist()}


if __name__ == "__main__":
    litserve.LitServer(Score(), accelerator="cpu", workers_per_device=1, timeout=60).run(
        host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning"
    )
