"""What one writes in an afternoon: FastAPI, a pydantic model of a record, a model behind a route.

    uvicorn --factory naive:with_onnx
    uvicorn --factory naive:with_torch
    python naive.py FILE && uvicorn --factory naive:with_pyod
"""

import os
import sys

import numpy as np
from session import THRESHOLD

NAMES = [f"feature_{j:02d}" for j in range(30)]
ENCODER, DECODER, N_LATENTS = [128, 64], [64, 128], 8


def _app(score):
    from fastapi import FastAPI
    from pydantic import BaseModel, create_model

    record = create_model("Record", **dict.fromkeys(NAMES, (float, ...)))
    body = create_model("Body", records=(list[record], ...))

    class Answer(BaseModel):
        scores: list[float]
        flags: list[bool]

    app = FastAPI()

    @app.post("/score")
    def scored(body: body) -> Answer:
        x = np.array([[getattr(record, name) for name in NAMES] for record in body.records], dtype=np.float32)
        scores = score(x)
        return Answer(scores=scores.tolist(), flags=(scores > THRESHOLD).tolist())

    return app


def with_onnx():
    """The graph in the session that onnxruntime gives who asks for nothing."""
    import onnxruntime as ort

    run = ort.InferenceSession(os.environ["GRAPH"]).run
    return _app(lambda x: run(["neg_elbo"], {"x": x})[0])


def with_torch():
    """A small VAE of its own, untrained: the time does not depend on its weights."""
    import torch
    from torch import nn

    torch.set_num_threads(1)

    def layers(*widths):
        steps = [step for a, b in zip(widths, widths[1:]) for step in (nn.Linear(a, b), nn.ReLU())]
        return nn.Sequential(*steps[:-1])

    encode, decode = layers(30, *ENCODER, 2 * N_LATENTS).eval(), layers(N_LATENTS, *DECODER, 30).eval()

    def score(x):
        with torch.inference_mode():
            x = torch.from_numpy(x)
            mean, log_variance = encode(x).chunk(2, dim=1)
            kl = (mean.square() + log_variance.exp() - log_variance - 1).sum(dim=1) / 2
            return ((x - decode(mean)).square().sum(dim=1) + kl).numpy()

    return _app(score)


def with_pyod():
    """PyOD's VAE, fitted before by this file as a program."""
    import joblib

    return _app(joblib.load(os.environ["PYOD_MODEL"]).decision_function)


def _fit_pyod(path):
    import joblib
    from pyod.models.vae import VAE

    model = VAE(
        encoder_neuron_list=ENCODER, decoder_neuron_list=DECODER, latent_dim=N_LATENTS, epoch_num=1, verbose=0
    )
    model.fit(np.random.default_rng(0).normal(size=(2000, 30)).astype(np.float32))
    joblib.dump(model, path)


if __name__ == "__main__":
    _fit_pyod(sys.argv[1])
