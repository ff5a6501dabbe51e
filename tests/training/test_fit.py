from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from nelbo.errors import TableError
from nelbo.records import Batch
from nelbo.schema import Column, Schema
from training.config import Config
from training.fit import Checkpoint, Fitted, Progress, fit
from training.layout import Layout, lay_out

CONFIG = Config(encoder=(16,), decoder=(16,), n_latents=2, steps=60, batch_size=32)


@dataclass(frozen=True)
class Table:
    layout: Layout
    batch: Batch

    def fit(
        self, config: Config = CONFIG, seed: int = 0, checkpoint: Checkpoint | None = None,
        report: Callable[[Progress], None] = lambda _: None,
    ) -> Fitted:  # fmt: skip
        return fit(self.layout, self.batch, config, seed, report, checkpoint)


@pytest.fixture
def table() -> Table:
    """Three numbers of one cause, and a category that follows it."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(200, 1))
    numbers = z @ np.array([[1.0, -2.0, 0.5]]) + 0.1 * rng.normal(size=(200, 3))
    codes = (z > 0).astype(np.int64)
    columns = [Column(name=f"x{j}", role="field", kind="numeric") for j in range(3)]
    schema = Schema(columns=(*columns, Column(name="c", role="field", kind="categorical", categories=("low", "high"))))
    batch = Batch(numbers, codes, np.arange(200), [None] * 200, {})
    return Table(lay_out(schema, batch), batch)


def weights(fitted: Fitted) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in fitted.vae.parameters()])


def test_loss_falls_below_that_of_independent_fields(table: Table) -> None:
    # Standard normal numbers cost 1.42 nats each and a fair category 0.69 where nothing is learnt of their cause.
    config = CONFIG.model_copy(update={"prior": "standard_normal", "encoder": (32,), "decoder": (32,), "steps": 600})
    fitted = table.fit(config.model_copy(update={"likelihood": "gaussian", "batch_size": 64, "learning_rate": 3e-3}))
    assert fitted.losses[-1][1] < 0.7 * (3 * 1.42 + 0.69)


def test_records_of_more_columns_than_latents_are_turned_onto_their_principal_axes(table: Table) -> None:
    vae = table.fit(CONFIG.model_copy(update={"steps": 1})).vae
    t = vae.features(torch.from_numpy(table.batch.numbers)).double().numpy()
    # Three numbers, and a category (two known ones, rare, unseen) that weighs as much as a number.
    columns = np.concatenate([t, np.eye(4)[table.batch.codes[:, 0]] / np.sqrt(2)], axis=1)
    _, _, axes = np.linalg.svd(columns)
    across = np.abs(axes[:2] @ vae.turn.double().numpy())
    np.testing.assert_allclose(across, np.eye(2), atol=1e-3)


def test_same_seed_gives_the_same_weights(table: Table) -> None:
    assert torch.equal(weights(table.fit(seed=3)), weights(table.fit(seed=3)))


def test_another_seed_gives_other_weights(table: Table) -> None:
    assert not torch.equal(weights(table.fit(seed=3)), weights(table.fit(seed=4)))


def test_interrupted_fit_goes_on_as_if_it_had_not_stopped(table: Table, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "fit.npz", "same", every_steps=20)

    def stop(progress: Progress) -> None:
        if progress.step == 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        table.fit(checkpoint=checkpoint, report=stop)
    assert checkpoint.path.exists()
    steps: list[int] = []
    resumed = table.fit(checkpoint=checkpoint, report=lambda progress: steps.append(progress.step))
    assert steps[0] == 41
    assert torch.equal(weights(resumed), weights(table.fit()))


def test_finished_fit_leaves_no_checkpoint(table: Table, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "fit.npz", "same", every_steps=20)
    table.fit(checkpoint=checkpoint)
    assert list(tmp_path.iterdir()) == []


def test_checkpoint_of_another_fit_is_refused(table: Table, tmp_path: Path) -> None:
    path = tmp_path / "fit.npz"
    np.savez(path, fingerprint=np.array("other"), step=np.array(20))
    with pytest.raises(TableError, match="belongs to a fit of other data, settings or seed; remove it to start anew"):
        table.fit(checkpoint=Checkpoint(path, "this"))


def test_damaged_checkpoint_is_refused(table: Table, tmp_path: Path) -> None:
    path = tmp_path / "fit.npz"
    path.write_bytes(b"PK\x03\x04 nonsense")
    with pytest.raises(TableError, match="is not a checkpoint of a fit; remove it to start anew"):
        table.fit(checkpoint=Checkpoint(path, "this"))


def test_fit_that_diverges_says_so(table: Table) -> None:
    with pytest.raises(TableError, match="the fit diverged"):
        table.fit(Config(steps=200, learning_rate=1e30))


def test_progress_reaches_the_last_step(table: Table) -> None:
    steps: list[int] = []
    table.fit(report=lambda progress: steps.append(progress.step))
    assert steps == list(range(1, 61))


def test_decoder_of_a_model_with_exemplars_bears_a_noise_of_1(table: Table) -> None:
    # One that had never met noise errs by more than half of the spread here (measured with the noise taken out).
    vae = table.fit(Config(encoder=(16,), decoder=(32,), steps=800, batch_size=64, masked_share=0)).vae
    t, one_hot, observed = vae.read(table.batch, len(table.batch))
    with torch.no_grad():
        mean, _ = vae.encode(t, one_hot, observed)
        noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(1))
        error = (vae.decode(mean + noise)[0] - t).abs().mean() / t.abs().mean()
    assert float(error) < 0.35
