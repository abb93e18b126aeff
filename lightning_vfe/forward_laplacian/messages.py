"""Sums of pair features times the sender's state: the one place where pair and particle tangents mix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_vfe.forward_laplacian.laplacian_tensor import LaplacianTensor, TensorLike, value_of
from lightning_vfe.forward_laplacian.layout import features_first, features_last, from_memory, to_memory


def messages_to_first(pairs: TensorLike, senders: TensorLike) -> Any:
    """m_i = sum_j g_ij s_j (..., M, F) from pairs g (..., M, N, F) and senders s (..., N, F), plain or carried."""
    if not isinstance(pairs, LaplacianTensor) and not isinstance(senders, LaplacianTensor):
        if pairs.ndim > 3 and pairs.shape[-4] == 1 and senders.ndim > 3:
            # Many senders along the same pairs: products of matrices (M, N) (N, B) for each feature.
            return (pairs.squeeze(-4).movedim(-1, -3) @ senders.movedim((-1, -3), (-3, -1))).movedim((-3, -1), (-1, -3))
        return (pairs * senders.unsqueeze(-3)).sum(-2)
    return _messages(pairs, senders, to_first=True)[0]


def messages_to_second(pairs: TensorLike, senders: TensorLike) -> Any:
    """m_j = sum_i g_ij s_i (..., N, F) from pairs g (..., M, N, F) and senders s (..., M, F), plain or carried."""
    if not isinstance(pairs, LaplacianTensor) and not isinstance(senders, LaplacianTensor):
        return (pairs * senders.unsqueeze(-2)).sum(-3)
    return _messages(pairs, senders, to_first=False)[0]


def messages_by_spin(pairs: TensorLike, senders: TensorLike) -> tuple[Any, Any]:
    """Messages to the first electron of each pair from the others of its spin, and from those of the opposite spin.

    Both (..., N, F) from pairs g (..., N, N, F) and senders s (..., N, F); the first N/2 are up.
    """
    if isinstance(pairs, LaplacianTensor) or isinstance(senders, LaplacianTensor):
        by_spin = _messages(pairs, senders, True, _kinds(value_of(pairs)))
        return by_spin[0], by_spin[1]
    same, opposite = _MessagesBySpin.apply(pairs, senders)  # type: ignore[no-untyped-call]  # torch has no types
    return same, opposite


class _MessagesBySpin(torch.autograd.Function):
    """The same for plain tensors; its derivative takes two products of the size of the pairs, and no copies."""

    generate_vmap_rule = True

    @staticmethod
    def forward(pairs: Tensor, senders: Tensor) -> tuple[Tensor, Tensor]:
        products = pairs * senders.unsqueeze(-3)
        sums = products.unflatten(-2, (2, -1)).sum(-2)  # (..., N, spin of the sender, F)
        same, opposite = _by_spin(sums)
        return same - products.diagonal(dim1=-3, dim2=-2).mT, opposite

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
        del output  # the derivative does not need it
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def jvp(ctx: Any, pairs_tangent: Tensor, senders_tangent: Tensor) -> tuple[Tensor, Tensor]:
        pairs, senders = ctx.saved_tensors
        by_pairs = _MessagesBySpin.forward(pairs_tangent, senders)
        by_senders = _MessagesBySpin.forward(pairs, senders_tangent)
        return by_pairs[0] + by_senders[0], by_pairs[1] + by_senders[1]

    @staticmethod
    def backward(ctx: Any, of_same: Tensor, of_opposite: Tensor) -> tuple[Tensor, Tensor]:
        pairs, senders = ctx.saved_tensors
        spins = (2, pairs.shape[-2] // 2)
        of_sums = torch.stack(_by_spin(torch.stack([of_same, of_opposite], dim=-2)), dim=-2).unsqueeze(-2)
        by_pairs = (of_sums * senders.unflatten(-2, spins).unsqueeze(-4)).flatten(-3, -2)
        by_senders = (pairs.unflatten(-2, spins) * of_sums).sum(-4).flatten(-3, -2)
        by_pairs.diagonal(dim1=-3, dim2=-2).zero_()
        return by_pairs, by_senders - pairs.diagonal(dim1=-3, dim2=-2).mT * of_same


def _by_spin(sums: Tensor) -> tuple[Tensor, Tensor]:
    """Both of a pair (..., N, 2, F), in the order given for the first half of the N and swapped for the second half."""
    up, down = sums.tensor_split(2, dim=-3)
    both = torch.cat([up, down.flip((-2,))], dim=-3)
    return both[..., 0, :], both[..., 1, :]


def _kinds(pairs: Tensor) -> Tensor:
    """1 for pairs of the same spin, then 1 for pairs of opposite spin; nothing for an electron itself.  # (2, N, N)"""
    num = pairs.shape[-2]
    spin = torch.ones(num, dtype=pairs.dtype, device=pairs.device)
    spin[num // 2 :] = -1.0
    opposite = 0.5 * (1.0 - torch.outer(spin, spin))
    return torch.stack([1.0 - opposite - torch.eye(num, dtype=pairs.dtype, device=pairs.device), opposite])


def _messages(
    pairs: TensorLike, senders: TensorLike, to_first: bool, kinds: Tensor | None = None
) -> list[LaplacianTensor]:
    """sum_j g_ij s_j by the product rule; with two kinds (2, M, N) of pairs a sum over each, by the spin of i and j.

    The first derivatives of g are those of the pair's own relative vector, so the tangents of all pairs are not formed:
    J m = g J s  is a product of matrices, and three tangents a pair are added.
    """
    g, lap_g, slopes, both_move = _pair_parts(pairs, to_first)  # (..., F, M, N) twice, (..., F, 3, M, N)
    s = features_first(value_of(senders))  # (..., F, N)
    leading = torch.broadcast_shapes(g.shape[:-3], s.shape[:-2])
    tangents = to_memory(senders.jacobian) if isinstance(senders, LaplacianTensor) else None
    lap_s = features_first(senders.laplacian) if isinstance(senders, LaplacianTensor) else torch.zeros_like(s)
    signs = (1.0, -1.0 if both_move else 0.0)
    signs = signs if to_first else signs[::-1]
    second = None
    if slopes is not None and lap_g is not None:
        second = lap_g * s.unsqueeze(-2) * (2.0 if both_move else 1.0)
        if tangents is not None:
            second.add_(_crossed(tangents, slopes, signs), alpha=2.0)
    found = []
    for number in range(1 if kinds is None else len(kinds)):
        weights = g if kinds is None else g * kinds[number]
        weights = weights.expand(*leading, *weights.shape[-3:])
        value, laplacian = torch.matmul(weights, torch.stack([s, lap_s], dim=-1)).unbind(-1)
        if tangents is not None:
            jacobian = torch.matmul(weights, tangents)  # (..., F, M, T)
        else:
            jacobian = g.new_zeros(*weights.shape[:-1], 3 * pairs.shape[-3])
        if slopes is not None and second is not None:
            for own, theirs in _blocks(slopes, None if kinds is None else number):
                _add_slopes(jacobian, s, slopes, signs, own, theirs)
            laplacian = laplacian + (second if kinds is None else second * kinds[number]).sum(-1)
        found.append(LaplacianTensor(features_last(value), from_memory(jacobian), features_last(laplacian)))
    return found


def _blocks(slopes: Tensor, kind: int | None) -> list[tuple[slice, slice]]:
    """Receivers and senders of all pairs, or of those of the same (kind 0) or opposite spin (kind 1)."""
    up, everyone = slice(slopes.shape[-1] // 2), slice(None)
    down = slice(slopes.shape[-1] // 2, None)
    if kind is None:
        return [(everyone, everyone)]
    return [(up, up), (down, down)] if kind == 0 else [(up, down), (down, up)]


def _pair_parts(pairs: TensorLike, to_first: bool) -> tuple[Tensor, Tensor | None, Tensor | None, bool]:
    """Value, Laplacian and slopes of the pairs, (..., F, receiver, sender), slopes (..., F, 3, receiver, sender)."""
    if not isinstance(pairs, LaplacianTensor):
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


def _add_slopes(
    jacobian: Tensor, s: Tensor, slopes: Tensor, signs: tuple[float, float], own: slice, theirs: slice
) -> None:
    """Add dg_ij s_j to the columns of the receiver i and of the sender j, in place.

    Args:
        jacobian: of the messages, one particle's three columns after the other.  # (..., F, M, T)
        s: states of the senders.  # (..., F, N)
        slopes: derivative by the vector between the two; zero for a particle itself.  # (..., F, 3, M, N)
        signs: of that vector in the receiver's and in the sender's position, zero if that does not move.
        own: the receivers i.
        theirs: the senders j.
    """
    target = jacobian.unflatten(-1, (-1, 3)).movedim(-1, -3)[..., own, :]  # (..., F, 3, M, particle)
    part, state = slopes[..., own, theirs], s[..., None, None, theirs]
    on_receiver, on_sender = signs
    if on_receiver:
        felt = torch.matmul(part, state.mT).squeeze(-1)
        target[..., own].diagonal(dim1=-2, dim2=-1).add_(felt, alpha=on_receiver)
    if on_sender:
        target[..., theirs].addcmul_(part, state, value=on_sender)


def _crossed(tangents: Tensor, slopes: Tensor, signs: tuple[float, float]) -> Tensor:
    """sum over tangents of dg_ij J s_j for each pair (..., F, M, N), from the senders' Jacobian (..., F, N, T)."""
    of_senders = tangents.unflatten(-1, (-1, 3)).movedim((-1, -2), (-3, -2))  # (..., F, 3, particle, N)
    on_receiver, on_sender = signs
    itself = of_senders.diagonal(dim1=-2, dim2=-1).unsqueeze(-2)  # (..., F, 3, 1, N)
    if not on_receiver:
        return torch.mul((slopes * itself).sum(-3), on_sender)
    felt = of_senders if not on_sender else torch.add(of_senders, itself, alpha=on_sender * on_receiver)
    return torch.mul((slopes * felt).sum(-3), on_receiver)
