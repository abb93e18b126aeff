"""One layer of the single streams as a Triton kernel, and its derivative; see `new_states` in streams.py.

A program works on a block of receivers and a tile of walkers. Its tiles are (states or messages, particles x walkers).
An electron hears messages (4 F, N, w), a proton messages (2, 2 F, n, w).
"""

import triton
import triton.language as tl

from lightning_vfe.models.wavefunction.density.fused.kernels import (
    block_of_senders,
    columns,
    matmul,
    over_senders,
    tanh,
    walkers_of_tile,
)


@triton.jit
def own_weights(own, STATES: tl.constexpr, ROWS: tl.constexpr):
    """A of the block, filled up with zeros.  # (S, S)"""
    row, column = tl.arange(0, ROWS)[:, None], tl.arange(0, ROWS)[None, :]
    place = own + (tl.program_id(1) * STATES + row) * STATES + column
    return tl.load(place, mask=(row < STATES) & (column < STATES), other=0.0)


@triton.jit
def message_weights(
    to_electrons, to_protons, STATES: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, MESSAGES: tl.constexpr
):
    """Weights of all messages to the block, filled up with zeros.  # (S, 4 F)"""
    row, column = tl.arange(0, ROWS)[:, None], tl.arange(0, MESSAGES)[None, :]
    receiver = tl.program_id(1)
    if receiver < 2:
        place = to_electrons + (receiver * STATES + row) * (4 * WIDTH) + column
        weights = tl.load(place, mask=(row < STATES) & (column < 4 * WIDTH), other=0.0)
    else:
        place = to_protons + ((receiver - 2) * STATES + row) * (2 * WIDTH) + column
        weights = tl.load(place, mask=(row < STATES) & (column < 2 * WIDTH), other=0.0)
    return weights


@triton.jit
def messages_of(
    messages, heard, particle, walker, is_particle, num, half, num_walkers, WIDTH: tl.constexpr, MESSAGES: tl.constexpr
):
    """All messages to the block, filled up with zeros.  # (4 F, particles x walkers)"""
    row, block = tl.arange(0, MESSAGES)[:, None], block_of_senders()
    if tl.program_id(1) < 2:
        place = messages + (row * num + block * half + particle) * num_walkers + walker
        found = tl.load(place, mask=is_particle & (row < 4 * WIDTH), other=0.0)
    else:
        place = heard + (((block - 2) * 2 * WIDTH + row) * half + particle) * num_walkers + walker
        found = tl.load(place, mask=is_particle & (row < 2 * WIDTH), other=0.0)
    return found


@triton.jit
def states_forward(
    states,
    shared,
    messages,
    heard,
    own,
    to_electrons,
    to_protons,
    new_states,
    num: tl.constexpr,
    half: tl.constexpr,
    num_walkers,
    STATES: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    MESSAGES: tl.constexpr,
    SENDERS: tl.constexpr,
    TILE: tl.constexpr,
):
    """h + tanh(A h + shared + C m)."""
    block, row = block_of_senders(), tl.arange(0, ROWS)[:, None]
    particle, walker, is_particle = columns(half, num_walkers, SENDERS, TILE)
    exists = is_particle & (row < STATES)
    place = ((block * STATES + row) * half + particle) * num_walkers + walker
    state = tl.load(states + place, mask=exists, other=0.0)
    argument = tl.load(shared + (block * STATES + row) * num_walkers + walker, mask=exists, other=0.0)
    argument += matmul(own_weights(own, STATES, ROWS), state)
    given = messages_of(messages, heard, particle, walker, is_particle, num, half, num_walkers, WIDTH, MESSAGES)
    argument += matmul(message_weights(to_electrons, to_protons, STATES, WIDTH, ROWS, MESSAGES), given)
    tl.store(new_states + place, state + tanh(argument), mask=exists)


@triton.jit
def states_backward(
    states,
    shared,
    messages,
    heard,
    own,
    to_electrons,
    to_protons,
    of_states,
    by_states,
    by_shared,
    by_messages,
    by_heard,
    num: tl.constexpr,
    half: tl.constexpr,
    num_walkers,
    STATES: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    MESSAGES: tl.constexpr,
    SENDERS: tl.constexpr,
    TILE: tl.constexpr,
):
    """From the derivative by the new states to those by the old states, the shared part and the messages."""
    block, row = block_of_senders(), tl.arange(0, ROWS)[:, None]
    particle, walker, is_particle = columns(half, num_walkers, SENDERS, TILE)
    own_walker, is_walker = walkers_of_tile(num_walkers, TILE)
    exists = is_particle & (row < STATES)
    place = ((block * STATES + row) * half + particle) * num_walkers + walker
    state = tl.load(states + place, mask=exists, other=0.0)
    argument = tl.load(shared + (block * STATES + row) * num_walkers + walker, mask=exists, other=0.0)
    matrix = own_weights(own, STATES, ROWS)
    argument += matmul(matrix, state)
    given = messages_of(messages, heard, particle, walker, is_particle, num, half, num_walkers, WIDTH, MESSAGES)
    weights = message_weights(to_electrons, to_protons, STATES, WIDTH, ROWS, MESSAGES)
    change = tanh(argument + matmul(weights, given))
    by_new = tl.load(of_states + place, mask=exists, other=0.0)
    by_argument = (1.0 - change * change) * by_new
    tl.store(by_states + place, by_new + matmul(tl.trans(matrix), by_argument), mask=exists)
    own_place = (block * STATES + row) * num_walkers + own_walker
    tl.store(by_shared + own_place, over_senders(by_argument, SENDERS, TILE), mask=is_walker & (row < STATES))
    by_given, message = matmul(tl.trans(weights), by_argument), tl.arange(0, MESSAGES)[:, None]
    if tl.program_id(1) < 2:
        inside = (message * num + block * half + particle) * num_walkers + walker
        tl.store(by_messages + inside, by_given, mask=is_particle & (message < 4 * WIDTH))
    else:
        inside = (((block - 2) * 2 * WIDTH + message) * half + particle) * num_walkers + walker
        tl.store(by_heard + inside, by_given, mask=is_particle & (message < 2 * WIDTH))
