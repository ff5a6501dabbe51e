"""Weights of eight bits: a quarter of the file, and the arithmetic as before."""

import torch
from torch import Tensor, nn

_WORTH_IT = 1024  # weights of a layer; smaller ones stay as they are. Chosen


class CompactLinear(nn.Module):
    """A dense layer whose weights are kept as whole steps, -127 to 127, of a size of each output's own.

    A rounded weight is off by at most 1/254 of the output's largest one. The runtime multiplies them out once, when it
    loads the graph.

    Args:
        layer: to be kept so.
    """

    steps: Tensor
    size: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weight = layer.weight.detach()
        size = weight.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
        self.register_buffer("steps", (weight / size).round().to(torch.int8))
        self.register_buffer("size", size)
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """(…, n_in) to (…, n_out)."""
        return nn.functional.linear(x, self.steps.float() * self.size, self.bias)


def compact(network: nn.Sequential) -> nn.Sequential:
    """A network with its large dense layers kept compactly; every other layer is the very same."""
    return nn.Sequential(
        *(
            CompactLinear(layer) if isinstance(layer, nn.Linear) and layer.weight.numel() >= _WORTH_IT else layer
            for layer in network
        )
    )
