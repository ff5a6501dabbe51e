"""A small VAE in torch, untrained: the time does not depend on its weights. `uvicorn naive_torch:app`."""

import torch
from naive import app_around
from torch import nn

N_LATENTS = 8

torch.set_num_threads(1)
encode = nn.Sequential(
    nn.Linear(30, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 2 * N_LATENTS)
).eval()
decode = nn.Sequential(nn.Linear(N_LATENTS, 64), nn.ReLU(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 30)).eval()


def _score(x):
    with torch.inference_mode():
        x = torch.from_numpy(x)
        mean, log_variance = encode(x).chunk(2, dim=1)
        kl = (mean.square() + log_variance.exp() - log_variance - 1).sum(dim=1) / 2
        return ((x - decode(mean)).square().sum(dim=1) + kl).numpy()


app = app_around(_score)
