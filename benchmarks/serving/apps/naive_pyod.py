"""PyOD's VAE, fitted before. `uvicorn naive_pyod:app`."""

import os

import joblib
from naive import app_around

app = app_around(joblib.load(os.environ["PYOD_MODEL"]).decision_function)
