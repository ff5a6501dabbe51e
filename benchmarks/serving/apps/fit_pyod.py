"""Fits PyOD's VAE to noise: the time to score does not depend on what it learnt. `python fit_pyod.py FILE`."""

import sys

import joblib
import numpy as np
from pyod.models.vae import VAE

model = VAE(encoder_neuron_list=[128, 64], decoder_neuron_list=[64, 128], latent_dim=8, epoch_num=1, verbose=0)
model.fit(np.random.default_rng(0).normal(size=(2000, 30)).astype(np.float32))
joblib.dump(model, sys.argv[1])
