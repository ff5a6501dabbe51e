"""The store's place on this machine, kept out of answers and logs: none of their readers needs it."""

import re
from pathlib import Path

_NAME = "NELBO_MODELS"  # the setting: whoever runs the service knows what it stands for


def without_path(text: str, root: Path) -> str:
    """A text in which the setting's name stands for the folder of models.

    Args:
        text: of an error, say.
        root: the folder, absolute.

    >>> without_path("bundle /models/pumps/1: score.onnx is missing; see /v1/models/pumps", Path("/models"))
    'bundle NELBO_MODELS/pumps/1: score.onnx is missing; see /v1/models/pumps'
    """
    place = str(root)
    # A letter or a slash before it makes it the end of another path, and a letter behind it the beginning of one.
    return re.sub(rf"(?<![\w/.-]){re.escape(place)}(?![\w.-])", _NAME, text) if place in text else text
