"""Sums of pair features times the sender's state: the one place where pair and particle tangents mix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_vfe.physics.forward.carried import Carried


def messages_to_first(pairs: Any, senders: Any) -> Any:
    """m_i = sum_j g_ij s_j (..., M, F) from pairs g (..., M, N, F) and senders s (..., N, F), plain or carried."""
    if not isinstance(pairs, Carried) and not isinstance(senders, Carried):
        return (pairs * senders.unsqueeze(-3)).sum(-2)
    return _messages(pairs, senders, "...ijf,...jf->...if", "...ijf,d...jf->d...if", to_first=True)


def messages_to_second(pairs: Any, senders: Any) -> Any:
    """m_j = sum_i g_ij s_i (..., N, F) from pairs g (..., M, N, F) and senders s (..., M, F), plain or carried."""
    if not isinstance(pairs, Carried) and not isinstance(senders, Carried):
        return (pairs * senders.unsqueeze(-2)).sum(-3)
    return _messages(pairs, senders, "...ijf,...if->...jf", "...ijf,d...if->d...jf", to_first=False)


def _messages(pairs: Any, senders: Any, plain: str, tangents: str, to_first: bool) -> Any:
    """The product rule, without forming the tangents of all pairs: the first derivatives of g are those of the pair's
    own relative vector, so that  J m = g J s  (a product of matrices) plus terms of three tangents a pair.
    """
    g, s = (x.value if isinstance(x, Carried) else x for x in (pairs, senders))
    value = torch.einsum(plain, g, s)
    jacobian: Tensor | float = 0.0
    laplacian: Tensor | float = 0.0
    if isinstance(senders, Carried):
        jacobian = torch.einsum(tangents, g, senders.jacobian)
        laplacian = torch.einsum(plain, g, senders.laplacian)
    if isinstance(pairs, Carried):
        if pairs.layout is None:
            raise NotImplementedError("messages take pairs in their own three tangents (see relative_vectors)")
        both_move = pairs.layout.both_move
        if not isinstance(senders, Carried):
            num_moving = g.shape[-3]
            jacobian = value.new_zeros(3 * num_moving, *value.shape)
        assert isinstance(jacobian, Tensor)
        jacobian, cross = _pair_terms(pairs.jacobian, s, senders, jacobian, both_move, to_first)
        factor = 2.0 if both_move else 1.0
        laplacian = laplacian + factor * torch.einsum(plain, pairs.laplacian, s) + 2.0 * cross
    assert isinstance(jacobian, Tensor) and isinstance(laplacian, Tensor)
    return Carried(value, jacobian, laplacian)


def _pair_terms(
    slopes: Tensor, s: Tensor, senders: Any, jacobian: Tensor, both_move: bool, to_first: bool
) -> tuple[Tensor, Tensor | float]:
    """Add dg_ij s to the columns of i (and minus that to those of j), and sum_tangents dg_ij J s for the Laplacian.

    slopes (3, ..., M, N, F); jacobian (3 M, ..., receivers, F).
    """
    num_moving = slopes.shape[-3]
    by_particle = jacobian.reshape(num_moving, 3, *jacobian.shape[1:])  # (M, 3, ..., receivers, F)
    sender_tangents = None
    if isinstance(senders, Carried):
        sender_tangents = senders.jacobian.reshape(num_moving, 3, *senders.jacobian.shape[1:])
    # The particle index of the tangents, i or j, lies on the receiver's or on the sender's index.
    cross: Tensor | float = 0.0
    for sign, tangent_is_first in ((1.0, True),) + (((-1.0, False),) if both_move else ()):
        on_receiver = tangent_is_first == to_first
        if on_receiver:
            own = torch.einsum("d...ijf,...jf->d...if" if to_first else "d...ijf,...if->d...jf", slopes, s)
            by_particle.diagonal(dim1=0, dim2=-2).add_(own.movedim(-2, -1), alpha=sign)
        else:
            terms = slopes * (s.unsqueeze(-3) if to_first else s.unsqueeze(-2))  # (3, ..., i, j, F)
            by_particle.add_(terms.movedim(-3 + (1 if to_first else 0), 0), alpha=sign)
        if sender_tangents is None:
            continue
        if on_receiver:
            subscripts = "d...ijf,id...jf->...if" if to_first else "d...ijf,jd...if->...jf"
            cross = cross + sign * torch.einsum(subscripts, slopes, sender_tangents)
        else:
            own_tangents = sender_tangents.diagonal(dim1=0, dim2=-2)  # (3, ..., F, senders)
            subscripts = "d...ijf,d...fj->...if" if to_first else "d...ijf,d...fi->...jf"
            cross = cross + sign * torch.einsum(subscripts, slopes, own_tangents)
    return by_particle.flatten(0, 1), cross
