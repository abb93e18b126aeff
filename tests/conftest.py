"""Settings that every test shares."""

import os

import pytest
import torch

# The tensors of the tests are small: a second thread costs more than it brings, much more on a busy machine.
# The second line is for the processes that tests start.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
# Triton's kernels run on the CPU; it reads this when it is imported, whoever does that first.
os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(autouse=True)
def double_precision():
    """Build all models in float64 and seed the global generator, whatever the previous test left behind."""
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(previous)
