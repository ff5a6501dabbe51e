import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from nelbo.schema import Column, Schema
from tests.training.test_vae import layout_of
from training.compact import CompactLinear, compact
from training.config import Config
from training.export import export
from training.vae import VAE, perceptron


def layer(n_in: int = 64, n_out: int = 32) -> nn.Linear:
    """Outputs whose weights are of very different sizes, one of them of none at all."""
    torch.manual_seed(0)
    made = nn.Linear(n_in, n_out)
    with torch.no_grad():
        made.weight.mul_(torch.logspace(-6, 3, n_out)[:, None])
        made.weight[5] = 0.0
    return made


def test_weight_is_off_by_a_254th_of_the_largest_of_its_output() -> None:
    exact = layer()
    kept = CompactLinear(exact)
    off = (kept.steps.float() * kept.size - exact.weight).abs().amax(dim=1)
    largest = exact.weight.abs().amax(dim=1)
    assert bool((off <= largest / 254 * (1 + 1e-5)).all())
    assert kept.steps.dtype == torch.int8
    assert kept.steps[torch.arange(32) != 5].abs().amax(dim=1).tolist() == [127] * 31
    assert not kept.steps[5].any()


def test_output_is_off_by_no_more_than_its_weights_allow() -> None:
    exact, x = layer(), torch.randn(100, 64)
    with torch.no_grad():
        off = (CompactLinear(exact)(x) - exact(x)).abs()
        allowed = x.abs().sum(dim=1, keepdim=True) * exact.weight.abs().amax(dim=1) / 254
    assert bool((off <= allowed * (1 + 1e-4) + 1e-6).all())
    assert bool((off.mean(dim=0)[-1] > 0.001 * allowed.mean(dim=0)[-1]).all())  # and it is not the exact layer


def test_bias_is_kept_as_it_is() -> None:
    exact = layer()
    assert torch.equal(CompactLinear(exact)(torch.zeros(1, 64))[0], exact.bias)


@pytest.mark.parametrize(("n_in", "n_out", "is_compact"), [(32, 32, True), (33, 31, False), (1, 4, False)])
def test_layers_of_a_thousand_weights_alone_are_compact(n_in: int, n_out: int, is_compact: bool) -> None:
    made = nn.Sequential(nn.Linear(n_in, n_out), nn.SiLU())
    kept = compact(made)
    assert isinstance(kept[0], CompactLinear) is is_compact
    assert is_compact or kept[0] is made[0]
    assert kept[1] is made[1]


def test_compact_network_says_nearly_the_same() -> None:
    torch.manual_seed(0)
    exact, x = perceptron([20, 64, 64, 5]), torch.randn(500, 20)
    with torch.no_grad():
        before, after = exact(x), compact(exact)(x)
    # Each of two layers is off by less than a hundredth of what it says, in the mean over independent roundings.
    assert float((after - before).std() / before.std()) < 0.02


def test_graph_holds_the_steps_and_the_biases_themselves() -> None:
    torch.manual_seed(0)
    vae = VAE(layout_of(3), Config(encoder=(64, 64), decoder=(64,)))
    vae.encoder, vae.decoder = compact(vae.encoder), compact(vae.decoder)
    schema = Schema(columns=tuple(Column(name=f"x{i}", role="field", kind="numeric") for i in range(3)))
    model = onnx.load_from_string(export(vae, schema))
    arrays = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    kept, small = vae.encoder[2], vae.decoder[2]
    assert isinstance(kept, CompactLinear)
    assert isinstance(small, nn.Linear)
    steps = [array for array in arrays if array.dtype == np.int8]
    assert len(steps) == 1
    assert np.array_equal(steps[0] if np.array_equal(steps[0], kept.steps) else steps[0].T, kept.steps)
    for bias in (kept.bias, small.bias):
        assert any(np.array_equal(array, bias.detach().numpy()) for array in arrays)
    # 64 × 64 weights are nowhere as floats.
    assert not any(array.size == 64 * 64 for array in arrays if array.dtype != np.int8)
