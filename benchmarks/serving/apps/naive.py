"""What one writes in an afternoon: FastAPI, a pydantic model of a record, a model behind a route."""

import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel, create_model

NAMES = [f"feature_{j:02d}" for j in range(30)]
THRESHOLD = 100.0  # chosen; nothing depends on it


class Answer(BaseModel):
    """Scores in the order of the records."""

    scores: list[float]
    flags: list[bool]


def app_around(score):
    """An app.

    Args:
        score: a function from records, float32, shape (n, 30), to scores, shape (n,).
    """
    record = create_model("Record", **dict.fromkeys(NAMES, (float, ...)))
    body = create_model("Body", records=(list[record], ...))
    app = FastAPI()

    @app.post("/score")
    def scored(body: body) -> Answer:
        x = np.array([[getattr(record, name) for name in NAMES] for record in body.records], dtype=np.float32)
        scores = score(x)
        return Answer(scores=scores.tolist(), flags=(scores > THRESHOLD).tolist())

    return app
