"""The first layer of the pair streams with its messages as a Triton kernel, from the angles of the particles.

See kernels.py for the programs and their tiles, pairs.py for the features of a pair. Features and distances are never
stored: both directions compute them from the angles t = pi (r_i - r_j) / L.
"""

import triton
import triton.language as tl

from lightning_vfe.models.wavefunction.density.fused.kernels import (
    block_of_senders,
    columns,
    over_senders,
    row_of_pairs,
    tanh,
    walkers_of_tile,
)
from lightning_vfe.models.wavefunction.density.pairs import TINY

NEVER_ZERO = tl.constexpr(TINY)


@triton.jit
def angles_of(angles, particle, num, num_walkers, walker, exists):
    """The three angles of a particle, out of (3, num, w); zero in columns that do not exist."""
    place = angles + particle * num_walkers + walker
    first, second = tl.load(place, mask=exists, other=0.0), tl.load(place + num * num_walkers, mask=exists, other=0.0)
    return first, second, tl.load(place + 2 * num * num_walkers, mask=exists, other=0.0)


@triton.jit
def ranges(offset, slope, spin, num_walkers, walker, exists):
    """a, 1 / b and a / b^2 of the block's pairs, see PairConstants."""
    near = (tl.program_id(1) * 2 + spin) * num_walkers + walker
    far = near + 8 * num_walkers
    length, inverse = tl.load(slope + near, mask=exists, other=1.0), tl.load(offset + far, mask=exists, other=1.0)
    return length, inverse, tl.load(slope + far, mask=exists, other=1.0)


@triton.jit
def new_pairs_of(t0, t1, t2, length, is_same_spin, weights, WIDTH: tl.constexpr, FEATURES: tl.constexpr):
    """g = tanh(A f) (F, senders x walkers), sines and cosines of the three angles, and d / a."""
    s0, s1, s2 = tl.sin(t0), tl.sin(t1), tl.sin(t2)
    c0, c1, c2 = tl.cos(t0), tl.cos(t1), tl.cos(t2)
    distance = tl.sqrt(s0 * s0 + s1 * s1 + s2 * s2 + NEVER_ZERO)
    both = 1.0 + length * distance
    feature = tl.arange(0, FEATURES)[:, None]
    row, is_one = weights + (tl.program_id(1) * (WIDTH + 1) + feature) * 9, feature < WIDTH
    argument = tl.load(row, mask=is_one, other=0.0) * (s0 * c0) + tl.load(row + 3, mask=is_one, other=0.0) * (s0 * s0)
    argument += tl.load(row + 1, mask=is_one, other=0.0) * (s1 * c1)
    argument += tl.load(row + 4, mask=is_one, other=0.0) * (s1 * s1)
    argument += tl.load(row + 2, mask=is_one, other=0.0) * (s2 * c2)
    argument += tl.load(row + 5, mask=is_one, other=0.0) * (s2 * s2)
    argument += tl.load(row + 6, mask=is_one, other=0.0) * (both + 1.0 / both)
    argument += tl.load(row + tl.where(is_same_spin, 7, 8), mask=is_one, other=0.0)
    return tanh(argument), s0, s1, s2, c0, c1, c2, distance


@triton.jit
def over_features(weights, number, by_argument, WIDTH: tl.constexpr, FEATURES: tl.constexpr):
    """Derivative by one feature.  # (1, senders x walkers)"""
    feature = tl.arange(0, FEATURES)[:, None]
    place = weights + (tl.program_id(1) * (WIDTH + 1) + feature) * 9 + number
    return tl.sum(tl.load(place, mask=feature < WIDTH, other=0.0) * by_argument, axis=0)[None, :]


@triton.jit
def first_forward(
    angles,
    every_angle,
    offset,
    slope,
    cusps,
    weights,
    senders,
    new_pairs,
    messages,
    to_protons,
    cusp_sums,
    num: tl.constexpr,
    half: tl.constexpr,
    num_walkers,
    WIDTH: tl.constexpr,
    FEATURES: tl.constexpr,
    SENDERS: tl.constexpr,
    TILE: tl.constexpr,
    IS_LAST: tl.constexpr,
):
    """g = tanh(A f), its messages to the electrons, those of the electrons to the protons, and the cusps (4, w)."""
    block, feature = block_of_senders(), tl.arange(0, FEATURES)[:, None]
    sender, walker, is_pair = columns(half, num_walkers, SENDERS, TILE)
    own_walker, is_walker = walkers_of_tile(num_walkers, TILE)
    exists, own_exists = is_pair & (feature < WIDTH), is_walker & (feature < WIDTH)
    z0, z1, z2 = angles_of(every_angle, block * half + sender, 2 * num, num_walkers, walker, is_pair)
    state = tl.load(senders + (block * (WIDTH + 1) + feature) * num_walkers + own_walker, mask=own_exists, other=0.0)
    heard = tl.zeros((FEATURES, SENDERS * TILE), z0.dtype)
    cusp_sum = tl.zeros_like(z0)
    for receiver in range(num):
        spin = receiver // half
        a0, a1, a2 = angles_of(angles, receiver, num, num_walkers, walker, is_pair)
        length, inverse, steep = ranges(offset, slope, spin, num_walkers, walker, is_pair)
        found = new_pairs_of(a0 - z0, a1 - z1, a2 - z2, length, spin == block, weights, WIDTH, FEATURES)
        new, distance = tl.where(exists, found[0], 0.0), found[7]
        start, step, kept = row_of_pairs(receiver, half, num, num_walkers, WIDTH, IS_LAST)
        tl.store(new_pairs + start + feature * step + sender * num_walkers + walker, new, mask=exists & kept)
        target = messages + ((block * WIDTH + feature) * num + receiver) * num_walkers + own_walker
        tl.store(target, over_senders(new, SENDERS, TILE) * state, mask=own_exists)
        heard += new
        factor = tl.load(cusps + (block * num + receiver) * half + sender, mask=is_pair, other=0.0)
        cusp_sum += factor / (inverse + steep * distance)
    if not IS_LAST:
        of_electron = tl.load(senders + feature * num_walkers + walker, mask=exists, other=0.0)
        target = to_protons + (((block - 2) * WIDTH + feature) * half + sender) * num_walkers + walker
        tl.store(target, heard * of_electron, mask=exists & (block >= 2))
    tl.store(cusp_sums + block * num_walkers + own_walker, over_senders(cusp_sum, SENDERS, TILE), mask=is_walker)


@triton.jit
def first_backward(
    angles,
    every_angle,
    offset,
    slope,
    cusps,
    weights,
    senders,
    of_pairs,
    of_messages,
    of_protons,
    of_cusps,
    by_receivers,
    by_senders,
    num: tl.constexpr,
    half: tl.constexpr,
    num_walkers,
    WIDTH: tl.constexpr,
    FEATURES: tl.constexpr,
    SENDERS: tl.constexpr,
    TILE: tl.constexpr,
    IS_LAST: tl.constexpr,
):
    """Derivatives by t, summed over the senders (4, 3, N, w) and over the receivers (2, 3, n, w)."""
    block, feature = block_of_senders(), tl.arange(0, FEATURES)[:, None]
    sender, walker, is_pair = columns(half, num_walkers, SENDERS, TILE)
    own_walker, is_walker = walkers_of_tile(num_walkers, TILE)
    exists = is_pair & (feature < WIDTH)
    z0, z1, z2 = angles_of(every_angle, block * half + sender, 2 * num, num_walkers, walker, is_pair)
    state = tl.load(senders + (block * (WIDTH + 1) + feature) * num_walkers + walker, mask=exists, other=0.0)
    of_cusp = tl.load(of_cusps + walker, mask=is_pair, other=0.0)
    of_heard = tl.zeros_like(state)
    if not IS_LAST:
        place = (((block - 2) * WIDTH + feature) * half + sender) * num_walkers + walker
        of_heard = tl.load(of_protons + place, mask=exists & (block >= 2), other=0.0)
        of_heard *= tl.load(senders + feature * num_walkers + walker, mask=exists, other=0.0)
    b0, b1, b2 = tl.zeros_like(z0), tl.zeros_like(z0), tl.zeros_like(z0)
    for receiver in range(num):
        spin = receiver // half
        a0, a1, a2 = angles_of(angles, receiver, num, num_walkers, walker, is_pair)
        length, inverse, steep = ranges(offset, slope, spin, num_walkers, walker, is_pair)
        found = new_pairs_of(a0 - z0, a1 - z1, a2 - z2, length, spin == block, weights, WIDTH, FEATURES)
        new, s0, s1, s2, c0, c1, c2, distance = found
        start, step, kept = row_of_pairs(receiver, half, num, num_walkers, WIDTH, IS_LAST)
        place = start + feature * step + sender * num_walkers + walker
        by_new = tl.load(of_pairs + place, mask=exists & kept, other=0.0) + of_heard
        place = ((block * WIDTH + feature) * num + receiver) * num_walkers + walker
        by_new += tl.load(of_messages + place, mask=exists, other=0.0) * state
        by_argument = (1.0 - new * new) * by_new
        factor = tl.load(cusps + (block * num + receiver) * half + sender, mask=is_pair, other=0.0)
        cusp, ratio = 1.0 / (inverse + steep * distance), 1.0 / (1.0 + length * distance)
        by_distance = over_features(weights, 6, by_argument, WIDTH, FEATURES) * length * (1.0 - ratio * ratio)
        by_distance -= of_cusp * factor * steep * cusp * cusp
        d0 = over_features(weights, 0, by_argument, WIDTH, FEATURES) * (c0 * c0 - s0 * s0)
        d1 = over_features(weights, 1, by_argument, WIDTH, FEATURES) * (c1 * c1 - s1 * s1)
        d2 = over_features(weights, 2, by_argument, WIDTH, FEATURES) * (c2 * c2 - s2 * s2)
        by_square = by_distance / distance
        d0 += (2.0 * over_features(weights, 3, by_argument, WIDTH, FEATURES) + by_square) * (s0 * c0)
        d1 += (2.0 * over_features(weights, 4, by_argument, WIDTH, FEATURES) + by_square) * (s1 * c1)
        d2 += (2.0 * over_features(weights, 5, by_argument, WIDTH, FEATURES) + by_square) * (s2 * c2)
        target = by_receivers + (block * 3 * num + receiver) * num_walkers + own_walker
        tl.store(target, over_senders(d0, SENDERS, TILE), mask=is_walker)
        tl.store(target + num * num_walkers, over_senders(d1, SENDERS, TILE), mask=is_walker)
        tl.store(target + 2 * num * num_walkers, over_senders(d2, SENDERS, TILE), mask=is_walker)
        b0, b1, b2 = b0 + d0, b1 + d1, b2 + d2
    target, moves = by_senders + (block * 3 * half + sender) * num_walkers + walker, is_pair & (block < 2)
    tl.store(target, b0, mask=moves)
    tl.store(target + half * num_walkers, b1, mask=moves)
    tl.store(target + 2 * half * num_walkers, b2, mask=moves)
