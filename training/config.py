"""What a fit can be told, and the one default that holds for every table."""

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nelbo.errors import SchemaError


class Config(BaseModel):
    """Settings of a fit, as a TOML file gives them.

    Attributes:
        likelihood: of a numeric field around what the decoder expects.
        hidden: widths of the hidden layers, of the encoder and, reversed, of the decoder; () makes the
            model linear.
        n_latents: None for half as many as fields, 2 to 16.
        shared_scale: one scale for all numeric fields instead of one each.
        steps: optimiser steps.
        batch_size: records a step.
        learning_rate: of Adam, at its highest; it warms up and then falls along a cosine.
        warm_up: share of the steps in which the weight of the KL grows from 0 to 1, so that latents are in
            use before they cost anything.
        masked_share: share of records a step from which fields are hidden, each at a rate drawn from
            U(0, 1/2); teaches the conditionals that explanation and missing values need.
        unseen_share: share of categorical cells a step that become "unseen"; teaches its surprise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    likelihood: Literal["gaussian", "laplace", "student_t"] = "laplace"
    hidden: tuple[int, ...] = (128, 128)
    n_latents: int | None = Field(None, ge=1, le=1024)
    shared_scale: bool = False
    steps: int = Field(3000, ge=1)
    batch_size: int = Field(256, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    warm_up: float = Field(0.3, ge=0, le=1)
    masked_share: float = Field(0.2, ge=0, le=1)
    unseen_share: float = Field(0.005, ge=0, lt=1)


def read_config(path: Path) -> Config:
    """The settings in a TOML file; what it leaves out keeps its default.

    Raises:
        SchemaError: the file cannot be read, or a setting is wrong.
    """
    try:
        return Config.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise SchemaError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SchemaError(f"{path}: is not TOML: {error}") from error
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise SchemaError(f"{path}: {'; '.join(faults)}") from error
