"""The graph in the session that onnxruntime gives who asks for nothing. `uvicorn naive_onnx:app`."""

import os

import onnxruntime as ort
from naive import app_around

_run = ort.InferenceSession(os.environ["GRAPH"]).run

app = app_around(lambda x: _run(["neg_elbo"], {"x": x})[0])
