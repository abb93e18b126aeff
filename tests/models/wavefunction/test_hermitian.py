"""Eigenvectors by batched products: against LAPACK, where levels meet, and what is dispatched."""

import math
from functools import partial

import pytest
import torch

from lightning_vfe.models.wavefunction.hermitian import eigenvectors
from lightning_vfe.models.wavefunction.secular import rank_one_update
from tests.helpers.matrices import WAITING, Dispatched, hermitian, physical, shells, with_levels
from tests.helpers.wavefunctions import GAMMA, GENERAL_TWIST


def _log_uniform(*shape, decades=16, seed=0):
    return 10.0 ** (-decades * torch.rand(*shape, generator=torch.Generator().manual_seed(seed)))


def _tridiagonal(diagonal, coupling):
    matrix = torch.diag_embed(diagonal) + torch.diag_embed(coupling, 1) + torch.diag_embed(coupling, -1)
    return matrix.to(torch.complex128)


KINDS = {
    "zero": lambda: torch.zeros(2, 19, 19, dtype=torch.complex128),
    "identity": lambda: torch.eye(19, dtype=torch.complex128),
    "diagonal": lambda: torch.diag_embed(_log_uniform(2, 19)).to(torch.complex128),
    "shells": lambda: with_levels(shells(0.0)),
    **{f"shells split by 1e-{n}": partial(lambda n: with_levels(shells(10.0**-n)), n) for n in (15, 14, 12, 9, 6, 3)},
    "two levels": lambda: with_levels(torch.arange(64.0) % 2),
    "one level but one": lambda: with_levels((torch.arange(33) == 7).to(torch.float64)),
    "many scales": lambda: with_levels(_log_uniform(4, 27)),
    "both signs": lambda: with_levels(10.0 ** -torch.arange(40.0) * (-1.0) ** torch.arange(40)),
    "couplings of many scales": lambda: _tridiagonal(_log_uniform(4, 27, decades=1), _log_uniform(4, 26, seed=1)),
    "equal levels": lambda: _tridiagonal(torch.ones(4, 27), _log_uniform(4, 26, decades=20)),
    "Wilkinson": lambda: _tridiagonal((torch.arange(21.0) - 10.0).abs(), torch.ones(20)),
    "tiny": lambda: 1e-200 * hermitian(2, 19, 19),
    "huge": lambda: 1e200 * hermitian(2, 19, 19),
    "real": lambda: hermitian(4, 19, 19).real,
    **{f"N = {n} at Gamma": partial(physical, n, GAMMA) for n in (2, 4, 8, 14, 16)},
    **{f"N = {n} at a twist": partial(physical, n, GENERAL_TWIST) for n in (2, 16)},
}


def _check(matrices, tolerance):
    vectors = eigenvectors(matrices)
    assert vectors.dtype == matrices.dtype
    assert vectors.shape == matrices.shape
    wide = vectors.to(torch.promote_types(vectors.dtype, torch.float64))
    exact = matrices.to(wide.dtype)
    scale = exact.abs().amax(dim=(-2, -1), keepdim=True).clamp(min=1e-300)
    size = scale * torch.linalg.matrix_norm(exact / scale, 2, keepdim=True).clamp(min=1.0)
    rotated = wide.mH @ (exact / size) @ wide
    levels = rotated.diagonal(dim1=-2, dim2=-1).real
    found = {
        "not diagonal": (rotated - torch.diag_embed(rotated.diagonal(dim1=-2, dim2=-1))).abs().max(),
        "not unitary": (wide.mH @ wide - torch.eye(matrices.shape[-1])).abs().max(),
        "levels": (levels - torch.linalg.eigvalsh(exact / size)).abs().max(),
    }
    assert all(error < tolerance for error in found.values()), {name: f"{error:.1e}" for name, error in found.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_matrix_in_double_precision(kind):
    _check(KINDS[kind](), 8e-15)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("tiny", "huge")])
def test_every_kind_of_matrix_in_single_precision(kind):
    matrices = KINDS[kind]()
    _check(matrices.to(torch.complex64 if matrices.is_complex() else torch.float32), 4e-6)


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5, 8, 19, 27, 32, 33, 64, 81])
def test_every_size(order):
    _check(hermitian(2, 3, order, order), 5e-15)


def test_not_a_number_stays_in_its_matrix():
    matrices = hermitian(3, 9, 9)
    alone = eigenvectors(matrices)
    matrices[1, 2, 2] = math.nan
    together = eigenvectors(matrices)
    torch.testing.assert_close(together[::2], alone[::2], rtol=0, atol=1e-14)
    assert together[1].isnan().all()


def test_operations_do_not_grow_with_the_batch_and_none_waits():
    counts = []
    for batch in (2, 7):
        with Dispatched() as dispatched:
            eigenvectors(hermitian(batch, 2, 27, 27))
        counts.append(dispatched.names)
    assert counts[0] == counts[1]
    assert counts[0].total() < 1700, counts[0].total()
    assert not set(WAITING) & set(counts[0]), counts[0]
    assert not any("eigh" in name for name in counts[0]), counts[0]


def test_vmap_does_not_add_operations():
    matrices = hermitian(3, 2, 4, 9, 9)
    with Dispatched() as plain:
        expected = eigenvectors(matrices)
    with Dispatched() as mapped:
        found = torch.func.vmap(torch.func.vmap(eigenvectors, in_dims=1), in_dims=2, out_dims=2)(matrices)
    torch.testing.assert_close(found.transpose(0, 1), expected, rtol=0, atol=1e-13)
    assert mapped.names.total() < plain.names.total() + 10


# --- the secular equation -------------------------------------------------------------------------------------------

GAPS = {
    "equal": lambda: torch.ones(50, 32) / 32.0,
    "of many scales": lambda: _log_uniform(50, 32),
    "tiny": lambda: 1e-13 * _log_uniform(50, 32),
}
WEIGHTS = {
    "equal": lambda: torch.ones(50, 32),
    "of many scales": lambda: _log_uniform(50, 32, seed=1),
    "every other tiny": lambda: (torch.where(torch.arange(32) % 2 == 0, 1.0, 1e-16)).expand(50, 32),
    "all tiny": lambda: torch.full((50, 32), 1e-16),
}


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("gaps", GAPS)
def test_rank_one_updates(gaps, weights):
    """The most difficult gaps and weights: backward stable, and orthogonal however close the levels are."""
    levels = GAPS[gaps]().cumsum(dim=-1)
    levels = levels / levels[:, -1:].clamp(min=1.0)
    step = 5e-16 * torch.arange(32)
    levels = (levels - step).cummax(dim=-1).values + step
    update = WEIGHTS[weights]().clamp(min=3e-16) / 8.0
    roots, rows = rank_one_update(levels, update)
    assert (roots >= levels).all()
    assert (roots.diff(dim=-1) >= 0.0).all()
    torch.testing.assert_close(rows @ rows.mT, torch.eye(32).expand(50, 32, 32), rtol=0, atol=1e-14)
    matrices = torch.diag_embed(levels) + update.unsqueeze(-1) * update.unsqueeze(-2)
    residual = (rows @ matrices - roots.unsqueeze(-1) * rows).abs().max()
    assert residual < 5e-15, f"{residual:.1e}"
