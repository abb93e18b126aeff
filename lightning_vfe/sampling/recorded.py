"""Moves in memory that stays, so that a GPU can record one move as a CUDA graph and repeat it.

A move is many small operations; repeated one by one, a GPU waits for Python most of the time. A move with a gradient
holds its backward pass, too: PyTorch runs that on the stream of the forward pass, so that the same graph records both.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import replace

import torch
from torch import Tensor

from lightning_vfe.sampling.proposals import ChainState, LogProb, PreparedLogProb, Proposal, recording_key
from lightning_vfe.sampling.step import step

KEPT = 2
"""Recorded moves that are kept: those of this many sets of shapes."""
WARM_UP = 3
"""Moves before the recording, in which libraries allocate what they need."""

_recorded: OrderedDict[Hashable, RecordedMoves | None] = OrderedDict()


class Moves:
    """Chains that move step by step.

    Attributes:
        state: where they stand.
        accepted: accepted moves of each chain, int64.  # (...)

    Args:
        log_prob: ln p up to a constant, at any image of the positions.
        state: where they start.
        proposal: the rule.
        width: scale of the moves.  # ()
    """

    def __init__(self, log_prob: LogProb, state: ChainState, proposal: Proposal, width: Tensor) -> None:
        self.log_prob, self.state, self.proposal, self.width = log_prob, state, proposal, width
        self.accepted = torch.zeros_like(state.log_prob, dtype=torch.int64)

    def move(self, noise: Tensor, log_uniform: Tensor) -> None:
        """One step with these random numbers, see `step`."""
        self.state, accept = step(self.log_prob, self.state, self.proposal, self.width, noise, log_uniform)
        self.accepted += accept

    def end(self) -> tuple[ChainState, Tensor]:
        """The state and the accepted moves."""
        return self.state, self.accepted


class RecordedMoves(Moves):
    """The same, where every step reads and writes the same memory.

    `record` it once, and `load` other numbers as often as needed. Only for rules that have a `recording_key`.
    """

    def __init__(self, log_prob: PreparedLogProb, state: ChainState, proposal: Proposal, width: Tensor) -> None:
        super().__init__(log_prob.clone(), _clone(state), proposal, width.clone())
        self._tensors = self.log_prob.tensors()  # type: ignore[attr-defined]
        self._noise, self._log_uniform = torch.zeros_like(state.positions), torch.zeros_like(state.log_prob)
        self._repeat: Callable[[], None] = self._step

    def record(self) -> None:
        """Record a step; load the numbers again afterwards."""
        self._repeat = record(self._step, self.width.device)

    def load(self, log_prob: PreparedLogProb, state: ChainState, width: Tensor) -> None:
        """Copy what a chain starts with into the own memory."""
        torch._foreach_copy_(self._tensors, log_prob.tensors())
        self._place(state)
        self.width.copy_(width)
        self.accepted.zero_()

    def move(self, noise: Tensor, log_uniform: Tensor) -> None:
        """Repeat the recorded step with these random numbers."""
        self._noise.copy_(noise)
        self._log_uniform.copy_(log_uniform)
        self._repeat()

    def end(self) -> tuple[ChainState, Tensor]:
        """The state and the accepted moves, in memory of their own."""
        return _clone(self.state), self.accepted.clone()

    def _step(self) -> None:
        new, accept = step(self.log_prob, self.state, self.proposal, self.width, self._noise, self._log_uniform)
        self._place(new)
        self.accepted += accept

    def _place(self, state: ChainState) -> None:
        """Copy a state into the own memory."""
        torch._foreach_copy_(_changing(self.state), _changing(state))


def _changing(state: ChainState) -> list[Tensor]:
    """The tensors that a step replaces."""
    return [state.positions, state.log_prob, *([] if state.gradient is None else [state.gradient])]


def _clone(state: ChainState) -> ChainState:
    """The same, with what a step replaces in memory of its own."""
    gradient = None if state.gradient is None else state.gradient.clone()
    return replace(state, positions=state.positions.clone(), log_prob=state.log_prob.clone(), gradient=gradient)


def make_moves(log_prob: LogProb, state: ChainState, proposal: Proposal, width: Tensor) -> Moves:
    """Recorded moves where they can be, else plain ones; both make the same chain."""
    moves, rule = None, recording_key(proposal)
    if isinstance(log_prob, PreparedLogProb) and rule is not None and can_record(state.positions.device):
        like = [*log_prob.tensors(), *_changing(state), width]
        key = (type(log_prob), rule, *((tuple(x.shape), x.stride(), x.dtype, x.device) for x in like))
        if key not in _recorded:
            _recorded[key] = _try_to_record(log_prob, state, proposal, width)
        _recorded.move_to_end(key)
        while len(_recorded) > KEPT:
            _recorded.popitem(last=False)
        moves = _recorded[key]
    if moves is None:
        return Moves(log_prob, state, proposal, width)
    assert isinstance(log_prob, PreparedLogProb)
    moves.load(log_prob, state, width)
    return moves


def can_record(device: torch.device) -> bool:
    """Whether the device knows CUDA graphs."""
    return device.type == "cuda"


def record(body: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """What repeats all that body() does on a GPU, in the same memory; body is run a few times."""
    library = torch.backends.cuda.preferred_linalg_library()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the choice is experimental
        torch.backends.cuda.preferred_linalg_library("cusolver")  # the other one waits for the host
    try:
        with torch.cuda.device(device):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    body()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # Other threads, those of torch.distributed, may use the GPU meanwhile.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                body()
    finally:
        torch.backends.cuda.preferred_linalg_library(library)
    return graph.replay


def _try_to_record(
    log_prob: PreparedLogProb, state: ChainState, proposal: Proposal, width: Tensor
) -> RecordedMoves | None:
    try:
        moves = RecordedMoves(log_prob, state, proposal, width)
        moves.record()
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        warnings.warn(f"moves are not recorded as a CUDA graph, which costs time only: {reason}", stacklevel=2)
        return None
    return moves
