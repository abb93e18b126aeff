"""Refuse sizes that no memory can hold, before the system ends the process without a word."""

from __future__ import annotations

from omegaconf import DictConfig

from lightning_vfe.errors import SettingError

NUMBER = 8
"""Bytes of a number."""
COPIES = 3
"""Of the electrons: where they stand, where they are proposed to go, and the gradient there."""


def check_memory(num_atoms: int, key: str = "system.num_atoms") -> None:
    """Compare the displacements of all pairs of one configuration with the free memory of this machine.

    Displacements, their nearest images and a temporary are 9 N^2 numbers at once.

    Args:
        num_atoms: N.
        key: the setting that N comes from.

    Raises:
        SettingError: the memory cannot hold them; names the key, the estimate and what is free.
    """
    _compare(key, num_atoms, 9 * num_atoms**2, "the pairs of one configuration")


def check_features(config: DictConfig) -> None:
    """Compare the features of psi for one configuration, with their derivatives, with the free memory.

    A feature of an electron has a Jacobian of 3 N numbers; one of a pair has a value, three derivatives and a
    Laplacian. The local energy holds those of one layer at once: N^2 (3 single_width + 5 pair_width) numbers, and as
    many features again of the pairs of an electron and a proton.

    Args:
        config: with the groups `system` and `wavefunction`; one that is not ours may have no such widths.

    Raises:
        SettingError: the memory cannot hold them.
    """
    single, pair = (int(config.wavefunction.get(f"{name}_width") or 0) for name in ("single", "pair"))
    num_atoms = config.system.num_atoms
    kinds_of_pairs = 1 if config.system.protons == "none" else 2
    count = num_atoms**2 * (3 * single + 5 * kinds_of_pairs * pair)
    _compare("system.num_atoms", num_atoms, count, "the features of one configuration and their derivatives")


def check_walkers(config: DictConfig) -> None:
    """Compare the electrons of all walkers with the free memory of this machine.

    Args:
        config: with the groups `system` and `sampler`.

    Raises:
        SettingError: the memory cannot hold them; names the larger of the two numbers of walkers.
    """
    sampler = config.sampler
    key = max(("num_proton_walkers", "num_electron_walkers"), key=lambda name: int(sampler[name]))
    count = COPIES * 3 * config.system.num_atoms * sampler.num_proton_walkers * sampler.num_electron_walkers
    purpose = f"the electrons of {sampler.num_proton_walkers} x {sampler.num_electron_walkers} walkers"
    _compare(f"sampler.{key}", sampler[key], count, purpose)


def _compare(key: str, value: int, count: int, purpose: str) -> None:
    import torch

    from lightning_vfe.physics.memory import free_memory

    free = free_memory(torch.device("cpu"))
    if free is not None and NUMBER * count > free:
        reason = f"needs at least {_size(NUMBER * count)} for {purpose}, and {_size(free)} are free"
        raise SettingError(key, value, reason, "lower it, or use a machine with more memory")


def _size(count: int) -> str:
    return f"{count / 2**30:.3g} GiB"
