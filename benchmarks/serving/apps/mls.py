"""MLServer around the graph: the runtime that `mlserver start .` finds named in its environment."""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from session import session


class Score(MLModel):
    """The first tensor of a request in, −ELBO out."""

    async def load(self) -> bool:
        """Loads the graph."""
        self._score = session()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """The answer in the protocol's form."""
        x = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        output = NumpyCodec.encode_output("neg_elbo", self._score(x))
        return InferenceResponse(model_name=self.name, outputs=[output])
