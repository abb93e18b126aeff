"""Sums of pair features times the sender's state: the one place where pair and particle tangents mix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_vfe.physics.forward.carried import Carried, value_of
from lightning_vfe.physics.forward.memory import features_first, features_last, from_memory, to_memory


def messages_to_first(pairs: Any, senders: Any) -> Any:
    """m_i = sum_j g_ij s_j (..., M, F) from pairs g (..., M, N, F) and senders s (..., N, F), plain or carried."""
    if not isinstance(pairs, Carried) and not isinstance(senders, Carried):
        return (pairs * senders.unsqueeze(-3)).sum(-2)
    return _messages(pairs, senders, to_first=True)


def messages_to_second(pairs: Any, senders: Any) -> Any:
    """m_j = sum_i g_ij s_i (..., N, F) from pairs g (..., M, N, F) and senders s (..., M, F), plain or carried."""
    if not isinstance(pairs, Carried) and not isinstance(senders, Carried):
        return (pairs * senders.unsqueeze(-2)).sum(-3)
    return _messages(pairs, senders, to_first=False)


def messages_by_spin(pairs: Any, senders: Any) -> Any:
    """Messages to the first electron of each pair from the others of its spin and from those of the opposite spin.

    (..., N, 2 F), two numbers for every feature, the one of the same spin first, from pairs g (..., N, N, F) and
    senders s (..., N, F); the first N/2 are up.
    """
    if isinstance(pairs, Carried) or isinstance(senders, Carried):
        return _messages(pairs, senders, to_first=True, num_spins=2)
    up = pairs.shape[-2] // 2
    products = pairs * senders.unsqueeze(-3)  # (..., N, N, F)
    itself = products.diagonal(dim1=-3, dim2=-2).transpose(-2, -1)
    sums = products.unflatten(-2, (2, up)).sum(-2).unflatten(-3, (2, up))  # (..., own spin, N/2, sender's spin, F)
    same_first = torch.cat([sums[..., :1, :, :, :], sums[..., 1:, :, :, :].flip(-2)], dim=-4).flatten(-4, -3)
    return (same_first - torch.stack([itself, torch.zeros_like(itself)], dim=-2)).transpose(-2, -1).flatten(-2)


def _messages(pairs: Any, senders: Any, to_first: bool, num_spins: int = 1) -> Carried:
    """sum_j g_ij s_j by the product rule, or with two spins two such sums over parts of the senders.

    The first derivatives of g are those of the pair's own relative vector, so the tangents of all pairs are not formed:
    J m = g J s  is a product of matrices, and three tangents a pair are added.
    """
    g, lap_g, slopes, both_move = _pair_parts(pairs, to_first)  # (..., F, M, N) twice, (..., F, 3, M, N)
    s = features_first(value_of(senders))  # (..., F, N)
    leading = torch.broadcast_shapes(g.shape[:-3], s.shape[:-2])
    kinds = _kinds(g) if num_spins == 2 else None
    weights = g if kinds is None else (g.unsqueeze(-3) * kinds).flatten(-3, -2)  # (..., F, kinds M, N)
    weights = weights.expand(*leading, *weights.shape[-3:])
    if isinstance(senders, Carried):
        tangents = to_memory(senders.jacobian)
        lap_s = features_first(senders.laplacian)
        jacobian = torch.matmul(weights, tangents)  # (..., F, kinds M, T)
    else:
        tangents, lap_s = None, torch.zeros_like(s)
        jacobian = g.new_zeros(*weights.shape[:-1], 3 * pairs.shape[-3])
    value, laplacian = torch.matmul(weights, torch.stack([s, lap_s], dim=-1)).unbind(-1)
    if slopes is not None and lap_g is not None:
        signs = (1.0, -1.0 if both_move else 0.0)
        signs = signs if to_first else signs[::-1]
        _add_slopes(jacobian.unflatten(-2, (num_spins, -1)), s, slopes, signs, num_spins)
        second = lap_g * s.unsqueeze(-2) * (2.0 if both_move else 1.0)
        if tangents is not None:
            second.add_(_crossed(tangents, slopes, signs), alpha=2.0)
        second = second.unsqueeze(-3) if kinds is None else second.unsqueeze(-3) * kinds
        laplacian = laplacian + second.sum(-1).flatten(-2)
    return _by_receiver(value, jacobian, laplacian, num_spins)


def _kinds(g: Tensor) -> Tensor:
    """1 for pairs of the same spin, then 1 for pairs of opposite spin; nothing for an electron itself.  # (2, N, N)"""
    num = g.shape[-1]
    spin = torch.ones(num, dtype=g.dtype, device=g.device)
    spin[num // 2 :] = -1.0
    opposite = 0.5 * (1.0 - torch.outer(spin, spin))
    return torch.stack([1.0 - opposite - torch.eye(num, dtype=g.dtype, device=g.device), opposite])


def _pair_parts(pairs: Any, to_first: bool) -> tuple[Tensor, Tensor | None, Tensor | None, bool]:
    """Value, Laplacian and slopes of the pairs, (..., F, receiver, sender), slopes (..., F, 3, receiver, sender)."""
    if not isinstance(pairs, Carried):
        g = features_first(pairs, 2)
        return g if to_first else g.transpose(-2, -1), None, None, False
    if pairs.layout is None:
        raise NotImplementedError("messages take pairs in their own three tangents (see relative_vectors)")
    parts = features_first(pairs.value, 2), features_first(pairs.laplacian, 2)
    slopes = to_memory(pairs.jacobian, 2)
    if to_first:
        return *parts, slopes, pairs.layout.both_move
    value, laplacian = (each.transpose(-2, -1) for each in parts)
    return value, laplacian, slopes.transpose(-2, -1), pairs.layout.both_move


def _add_slopes(jacobian: Tensor, s: Tensor, slopes: Tensor, signs: tuple[float, float], num_spins: int) -> None:
    """Add dg_ij s_j to the columns of the receiver i and of the sender j, in place.

    Args:
        jacobian: of the messages, one particle's three columns after the other.  # (..., F, kinds, M, T)
        s: states of the senders.  # (..., F, N)
        slopes: derivative by the vector between the two; zero for a particle itself.  # (..., F, 3, M, N)
        signs: of that vector in the receiver's and in the sender's position, zero if that does not move.
        num_spins: 1, or 2 for the kinds of `messages_by_spin`.
    """
    by_particle = jacobian.unflatten(-1, (-1, 3)).movedim(-1, -4)  # (..., F, 3, kinds, M, particle)
    on_receiver, on_sender = signs
    rows, columns = (torch.arange(slopes.shape[dim]).tensor_split(num_spins) for dim in (-2, -1))
    for number, row in enumerate(rows):
        own = slice(int(row[0]), int(row[-1]) + 1)
        for other, column in enumerate(columns):
            theirs = slice(int(column[0]), int(column[-1]) + 1)
            target = by_particle[..., int(number != other), own, :]  # (..., F, 3, M', particle)
            part, state = slopes[..., own, theirs], s[..., None, None, theirs]
            if on_receiver:
                felt = torch.matmul(part, state.transpose(-2, -1)).squeeze(-1)
                target[..., own].diagonal(dim1=-2, dim2=-1).add_(felt, alpha=on_receiver)
            if on_sender:
                target[..., theirs].addcmul_(part, state, value=on_sender)


def _crossed(tangents: Tensor, slopes: Tensor, signs: tuple[float, float]) -> Tensor:
    """sum over tangents of dg_ij J s_j for each pair (..., F, M, N), from the senders' Jacobian (..., F, N, T)."""
    of_senders = tangents.unflatten(-1, (-1, 3)).movedim((-1, -2), (-3, -2))  # (..., F, 3, particle, N)
    on_receiver, on_sender = signs
    itself = of_senders.diagonal(dim1=-2, dim2=-1).unsqueeze(-2)  # (..., F, 3, 1, N)
    if not on_receiver:
        return on_sender * (slopes * itself).sum(-3)
    felt = of_senders if not on_sender else torch.add(of_senders, itself, alpha=on_sender * on_receiver)
    return on_receiver * (slopes * felt).sum(-3)


def _by_receiver(value: Tensor, jacobian: Tensor, laplacian: Tensor, num_kinds: int) -> Carried:
    """From (..., F, kinds M) and (..., F, kinds M, T) to a carried (..., M, F kinds)."""
    value, laplacian = (part.unflatten(-1, (num_kinds, -1)).flatten(-3, -2) for part in (value, laplacian))
    jacobian = jacobian.unflatten(-2, (num_kinds, -1)).flatten(-4, -3)
    return Carried(features_last(value), from_memory(jacobian), features_last(laplacian))
