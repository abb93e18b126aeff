"""The same update from one, two and three processes that talk to each other."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import lightning_vfe.optim.collectives as collectives_module
from lightning_vfe.optim.collectives import Collectives
from lightning_vfe.optim.solve import ScoreBlock, SolveSettings, fisher_and_force, minsr_direction, sr_direction

NUM_SAMPLES, NUM_PARAMETERS = 12, 31  # the parameters divide by neither


def problem():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(NUM_SAMPLES, 2, NUM_PARAMETERS, generator=generator, dtype=torch.float64)
    residuals = torch.randn(NUM_SAMPLES, 2, generator=generator, dtype=torch.float64)
    residuals -= residuals.mean(0)
    last = torch.randn(NUM_PARAMETERS, generator=generator, dtype=torch.float64)
    return scores, residuals, last


def updates(part):
    """In both spaces, the groups within a process or over all of them, with weights and without."""
    scores, residuals, last = problem()
    settings, collectives = SolveSettings(1e-3, 0.9), Collectives()
    found = []
    for groups in (torch.arange(NUM_SAMPLES) // 2, torch.arange(NUM_SAMPLES) % 2):
        weights = (1.0 + groups.double()) / (1.0 + groups.double()).mean()
        for block in (
            ScoreBlock(scores[part], residuals[part], groups[part]),
            ScoreBlock(scores[part], residuals[part], groups[part], weights[part]),
        ):
            found.append(minsr_direction(block, last, settings, collectives))
            found.append(sr_direction(*fisher_and_force(block, collectives), last, settings))
    return torch.stack([direction.direction for direction in found])


def work(rank, size, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    collectives_module.LARGEST_MESSAGE = 512  # several messages
    share = NUM_SAMPLES // size
    torch.save(updates(slice(rank * share, (rank + 1) * share)), f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("size", [2, 3])
def test_processes_find_the_update_of_one(size: int, tmp_path) -> None:
    mp.spawn(work, (size, str(tmp_path)), nprocs=size)
    reference = updates(slice(None))
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(size)]
    for other in found[1:]:
        assert torch.equal(found[0], other)
    error = (found[0] - reference).abs().max() / reference.abs().max()
    assert error < 1e-11, f"relative error {error:.1e}"
