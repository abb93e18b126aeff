"""One layer of a pair stream with its messages as a Triton kernel, and its derivative.

A program works on the pairs of one sender's block and a tile of walkers, receiver after receiver. Its tiles are
(features, senders x walkers): a product with the weights is one product of matrices, a message to the receiver is a
sum over the senders of a tile, and what goes to the senders is added up from receiver to receiver. Each number of a
pair is read once and written once.

Layout and formulas are those of layout.py and streams.py, except for the constant feature: pairs have F features, and
weights (4, F + 1, F + 1) end with the bias.
"""

import triton
import triton.language as tl


@triton.jit
def tanh(x):
    """Tanh with the absolute error of rounding, as the sums that it is added to have it."""
    small = tl.exp(-2.0 * tl.abs(x))
    size = (1.0 - small) / (1.0 + small)
    return tl.where(x < 0.0, -size, size)


@triton.jit
def matmul(matrix, x):
    """The product in full precision: never in TF32."""
    return tl.dot(matrix, x, input_precision="ieee", out_dtype=x.dtype)


@triton.jit
def over_senders(x, SENDERS: tl.constexpr, TILE: tl.constexpr):
    """Sum over the senders, (F, senders x walkers) -> (F, walkers)."""
    return tl.sum(tl.reshape(x, (x.shape[0], SENDERS, TILE)), axis=1)


@triton.jit
def block_of_senders():
    """Number of the program's block of senders.  # (1, 1)"""
    return tl.full((1, 1), tl.program_id(1), tl.int64)


@triton.jit
def columns(half, num_walkers, SENDERS: tl.constexpr, TILE: tl.constexpr):
    """Sender and walker of every column of a tile, and which columns exist.  # (1, senders x walkers)"""
    column = tl.arange(0, SENDERS * TILE)[None, :]
    sender, walker = column // TILE, tl.program_id(0) * TILE + column % TILE
    return sender, walker, (sender < half) & (walker < num_walkers)


@triton.jit
def walkers_of_tile(num_walkers, TILE: tl.constexpr):
    """Walkers of a tile, and which of them exist.  # (1, walkers)"""
    walker = tl.program_id(0) * TILE + tl.arange(0, TILE)[None, :]
    return walker, walker < num_walkers


@triton.jit
def row_of_pairs(receiver, half, num, num_walkers, WIDTH: tl.constexpr, IS_LAST: tl.constexpr):
    """Where the new pairs of a receiver start, the step of their features, and whether they are kept.

    The last layer keeps pairs of opposite spin, (2, F, n, n, w); all others keep all, (4, F, N, n, w).
    """
    block = block_of_senders()
    if IS_LAST:
        spin = receiver // half
        start = (spin * WIDTH - spin) * half + receiver
        return start * half * num_walkers, half * half * num_walkers, (block < 2) & (spin != block)
    else:
        start = block * WIDTH * num + receiver
        return start * half * num_walkers, num * half * num_walkers, block >= 0


@triton.jit
def weights_of_layer(weights, WIDTH: tl.constexpr, FEATURES: tl.constexpr):
    """Weights (F, F) and bias (F, 1) of the block's stream."""
    out, into = tl.arange(0, FEATURES)[:, None], tl.arange(0, FEATURES)[None, :]
    rows = weights + (tl.program_id(1) * (WIDTH + 1) + out) * (WIDTH + 1)
    matrix = tl.load(rows + into, mask=(out < WIDTH) & (into < WIDTH), other=0.0)
    return matrix, tl.load(rows + WIDTH, mask=out < WIDTH, other=0.0)


@triton.jit
def layer_forward(
    pairs,
    weights,
    senders,
    new_pairs,
    messages,
    to_protons,
    num: tl.constexpr,
    half: tl.constexpr,
    num_walkers,
    WIDTH: tl.constexpr,
    FEATURES: tl.constexpr,
    SENDERS: tl.constexpr,
    TILE: tl.constexpr,
    IS_LAST: tl.constexpr,
):
    """g <- g + tanh(A g + b), its messages to the electrons, and those of the electrons to the protons."""
    block = block_of_senders()
    feature = tl.arange(0, FEATURES)[:, None]
    sender, walker, exists = columns(half, num_walkers, SENDERS, TILE)
    own_walker, own_exists = walkers_of_tile(num_walkers, TILE)
    exists, own_exists = exists & (feature < WIDTH), own_exists & (feature < WIDTH)
    matrix, bias = weights_of_layer(weights, WIDTH, FEATURES)
    place = (feature * half + sender) * num_walkers + walker
    state = tl.load(senders + block * WIDTH * half * num_walkers + place, mask=exists, other=0.0)
    heard = tl.zeros_like(state)
    for receiver in range(num):
        spin = receiver // half
        row = pairs + (block * WIDTH * num + receiver) * half * num_walkers
        inside = feature * num * half * num_walkers + sender * num_walkers + walker
        old = tl.load(row + inside, mask=exists, other=0.0)
        new = tl.where(exists, old + tanh(matmul(matrix, old) + bias), 0.0)
        start, step, kept = row_of_pairs(receiver, half, num, num_walkers, WIDTH, IS_LAST)
        target = new_pairs + start + feature * step + sender * num_walkers + walker
        tl.store(target, new, mask=exists & kept)
        target = messages + ((block * WIDTH + feature) * num + receiver) * num_walkers + own_walker
        tl.store(target, over_senders(new * state, SENDERS, TILE), mask=own_exists)
        if not IS_LAST:
            electron = ((spin * WIDTH + feature) * half + receiver - spin * half) * num_walkers + walker
            heard += new * tl.load(senders + electron, mask=exists & (block >= 2), other=0.0)
    if not IS_LAST:
        tl.store(to_protons + (block - 2) * WIDTH * half * num_walkers + place, heard, mask=exists & (block >= 2))


@triton.jit
def layer_backward(
    pairs,
    weights,
    senders,
    of_pairs,
    of_messages,
    of_protons,
    by_pairs,
    by_senders,
    by_electrons,
    num: tl.constexpr,
    half: tl.constexpr,
    num_walkers,
    WIDTH: tl.constexpr,
    FEATURES: tl.constexpr,
    SENDERS: tl.constexpr,
    TILE: tl.constexpr,
    IS_LAST: tl.constexpr,
):
    """From derivatives by the new pairs and messages (of_...) to those by the old pairs and the senders (by_...).

    `by_electrons` (2, F, N, w) belongs to the electrons as senders to both blocks of protons.
    """
    block = block_of_senders()
    feature = tl.arange(0, FEATURES)[:, None]
    sender, walker, exists = columns(half, num_walkers, SENDERS, TILE)
    own_walker, own_exists = walkers_of_tile(num_walkers, TILE)
    exists, own_exists = exists & (feature < WIDTH), own_exists & (feature < WIDTH)
    to_protons = exists & (block >= 2)
    matrix, bias = weights_of_layer(weights, WIDTH, FEATURES)
    place = (feature * half + sender) * num_walkers + walker
    state = tl.load(senders + block * WIDTH * half * num_walkers + place, mask=exists, other=0.0)
    if not IS_LAST:
        of_proton = of_protons + (block - 2) * WIDTH * half * num_walkers + place
        of_heard = tl.load(of_proton, mask=to_protons, other=0.0)
    by_state = tl.zeros_like(state)
    for receiver in range(num):
        spin = receiver // half
        row = (block * WIDTH * num + receiver) * half * num_walkers
        inside = row + feature * num * half * num_walkers + sender * num_walkers + walker
        old = tl.load(pairs + inside, mask=exists, other=0.0)
        change = tanh(matmul(matrix, old) + bias)
        new = old + change
        start, step, kept = row_of_pairs(receiver, half, num, num_walkers, WIDTH, IS_LAST)
        source = of_pairs + start + feature * step + sender * num_walkers + walker
        by_new = tl.load(source, mask=exists & kept, other=0.0)
        source = of_messages + ((block * WIDTH + feature) * num + receiver) * num_walkers + walker
        of_message = tl.load(source, mask=exists, other=0.0)
        by_new += of_message * state
        by_state += of_message * new
        if not IS_LAST:
            electron = ((spin * WIDTH + feature) * half + receiver - spin * half) * num_walkers + walker
            by_new += of_heard * tl.load(senders + electron, mask=to_protons, other=0.0)
            target = by_electrons + (((block - 2) * WIDTH + feature) * num + receiver) * num_walkers + own_walker
            tl.store(target, over_senders(of_heard * new, SENDERS, TILE), mask=own_exists & (block >= 2))
        by_argument = (1.0 - change * change) * by_new
        tl.store(by_pairs + inside, by_new + matmul(tl.trans(matrix), by_argument), mask=exists)
    tl.store(by_senders + block * WIDTH * half * num_walkers + place, by_state, mask=exists)
