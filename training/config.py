"""What a fit can be told, and the one default that holds for every table."""

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nelbo.errors import SchemaError


class Config(BaseModel):
    """Settings of a fit, as a TOML file gives them.

    Attributes:
        prior: what a record's latents are held against. "exemplars": up to `n_exemplars` records of the table, in
            code, which the bundle then holds. "standard_normal": N(0, I), of which nothing in the bundle tells.
        n_exemplars: at most.
        likelihood: of a numeric field around what the decoder expects. A model with exemplars is always fitted with
            the Cauchy likelihood, and gets this one with its scales afterwards.
        encoder: widths of its hidden layers; () makes it linear.
        decoder: widths of its hidden layers; () makes it linear.
        n_latents: None for as many as a record has columns (up to 512) with exemplars, and for half as many as
            fields (2 to 16) with a standard normal prior.
        shared_scale: one scale for all numeric fields instead of one each; only with a standard normal prior.
        steps: optimiser steps; None for one and a half a record, 1,000 to 3,000.
        batch_size: records a step.
        learning_rate: of Adam, at its highest; it warms up and then falls along a cosine.
        warm_up: share of the steps in which the weight of the KL grows from 0 to 1, so that latents are in
            use before they cost anything; only with a standard normal prior.
        masked_share: share of records a step from which fields are hidden, each at a rate drawn from
            U(0, 1/2); teaches the conditionals that explanation and missing values need.
        unseen_share: share of categorical cells a step that become "unseen", so that the encoder has met it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prior: Literal["exemplars", "standard_normal"] = "exemplars"
    n_exemplars: int = Field(4096, ge=1, le=65_536)
    likelihood: Literal["gaussian", "laplace", "student_t"] = "student_t"
    encoder: tuple[int, ...] = (256, 256)
    decoder: tuple[int, ...] = (256, 256)
    n_latents: int | None = Field(None, ge=1, le=1024)
    shared_scale: bool = False
    steps: int | None = Field(None, ge=1)
    batch_size: int = Field(128, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    warm_up: float = Field(0.3, ge=0, le=1)
    masked_share: float = Field(0.1, ge=0, le=1)
    unseen_share: float = Field(0.005, ge=0, lt=1)

    def steps_for(self, n: int) -> int:
        """Optimiser steps for n records.

        >>> Config().steps_for(27), Config().steps_for(1_500), Config(steps=50).steps_for(27)
        (1000, 2250, 50)
        """
        return self.steps or min(3000, max(1000, 3 * n // 2))


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
