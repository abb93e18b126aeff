"""Switches of interactions."""

import numpy as np
import torch

from lightning_vfe.models.potential.radial import cosine_switch, quintic_switch


def test_switches_go_from_one_to_zero():
    r = torch.linspace(0.0, 3.0, 301)
    for values in (quintic_switch(r, 0.5, 2.0), cosine_switch(r, 2.0)):
        assert values[0] == 1.0
        assert (values[r >= 2.0] == 0.0).all()
        assert (np.diff(values.numpy()) <= 0).all()
