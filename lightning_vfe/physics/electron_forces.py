"""Hellmann-Feynman forces on the protons from electron walkers, with a variance that is finite."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from lightning_vfe.errors import SettingError
from lightning_vfe.physics.ewald import Ewald

FILTER_RADIUS = 0.6
"""In bohr: inside, the electrons' pull on a proton is filtered."""
NUM_POWERS = 4
WEIGHT_POWER = 2


def hellmann_feynman_forces(ewald: Ewald, protons: Tensor, electrons: Tensor, rs: Tensor) -> Tensor:
    """-d(V_pp + V_pe)/dx of single electron walkers, whose average over |psi|^2 is the Hellmann-Feynman force.

    It is the force -dE/dx only where psi is at its minimum and its derivative by the protons costs no energy. Elsewhere
    the force that the change of psi with x gives (Pulay's) is missing, and the error is of first order in that of psi.

    The pull of an electron at the distance r goes like 1/r^2 and its variance is infinite. Inside a sphere around each
    proton it is multiplied by `near_weight(r)`, which changes no average of a smooth density.

    Args:
        ewald: of the cell in units of rs (`System.cell`).
        protons: in bohr.  # (W, N, 3)
        electrons: in bohr.  # (W, B, N, 3)
        rs: in bohr.  # (W,)

    Returns:
        Forces in Ha/bohr.  # (W, B, N, 3)
    """
    unit = rs[:, None].expand(electrons.shape[:2])
    with torch.enable_grad():
        x = protons.detach().unsqueeze(1).expand_as(electrons).clone().requires_grad_()
        found = ewald.energies(x, electrons.detach(), unit=unit)
        energy = (found.v_pp + found.v_pe) / unit
        (slope,) = torch.autograd.grad(energy.sum(), x)
    length = unit[..., None, None, None]
    between = (electrons.unsqueeze(-3) - protons[:, None, :, None]) / length  # (W, B, N protons, N electrons, 3)
    between = ewald.cell.minimum_image(between) * length
    distance = between.norm(dim=-1)
    radius = min(FILTER_RADIUS, 0.5 * ewald.cell.length * float(rs.min()))
    change = torch.where(distance < radius, near_weight(distance, radius) - 1.0, torch.zeros_like(distance))
    correction = (change / distance.clamp_min(1e-12) ** 3).unsqueeze(-1) * between
    forces: Tensor = correction.sum(-2) - slope
    return forces


def near_weight(distance: Tensor, radius: float) -> Tensor:
    r"""The weight g(r) of an electron's pull inside the sphere of a proton.

    The radial density of the pull, f(r) = int dOmega rho(r) cos(theta), vanishes like r at the proton. g is exact for
    f = a_1 r + ... + a_4 r^4:

        int_0^R g(r) r^k dr = R^{k+1} / (k+1),     k = 1 ... 4,       g(r) = sum_k h_k r^{k+2}.

    Args:
        distance: r in bohr.
        radius: R in bohr.

    Returns:
        g(r), which is small at r = 0.

    Raises:
        SettingError: the radius is not positive.

    Source: Chiesa, Ceperley and Zhang, Phys. Rev. Lett. 94, 036404 (2005).
    """
    if not radius > 0:
        raise SettingError("radius", radius, "must be positive, in bohr", f"{FILTER_RADIUS} is usual")
    reduced = distance / radius
    powers = reduced.unsqueeze(-1) ** torch.arange(1, NUM_POWERS + 1, device=distance.device)
    weight: Tensor = (powers * _coefficients().to(distance)).sum(-1) * reduced**WEIGHT_POWER
    return weight


@functools.cache
def _coefficients() -> Tensor:
    """h_k for R = 1."""
    k = torch.arange(1, NUM_POWERS + 1, dtype=torch.float64)
    overlap = 1.0 / (k[:, None] + k + WEIGHT_POWER + 1.0)
    found: Tensor = torch.linalg.inv(overlap) @ (1.0 / (k + 1.0))
    return found
