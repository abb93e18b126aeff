"""Moves in memory that stays, so that a GPU can record one move as a CUDA graph and repeat it.

A move is many small operations; repeated one by one, a GPU waits for Python most of the time.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch
from torch import Tensor

from lightning_vfe.sampling.proposals import ChainState, GaussianProposal, LogProb, PreparedLogProb, Proposal
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

    `record` it once, and `load` other numbers as often as wanted. Only for rules without a gradient.
    """

    def __init__(self, log_prob: PreparedLogProb, state: ChainState, proposal: Proposal, width: Tensor) -> None:
        assert state.gradient is None
        positions, displacement = state.positions.clone(), state.displacement
        own = ChainState(positions, state.log_prob.clone(), None, displacement)
        super().__init__(log_prob.clone(), own, proposal, width.clone())
        self._tensors = self.log_prob.tensors()  # type: ignore[attr-defined]
        self._noise, self._log_uniform = torch.zeros_like(positions), torch.zeros_like(own.log_prob)
        self._repeat: Callable[[], None] = self._step

    def record(self) -> None:
        """Record a step; load the numbers again afterwards."""
        self._repeat = record(self._step, self.width.device)

    def load(self, log_prob: PreparedLogProb, state: ChainState, width: Tensor) -> None:
        """Copy what a chain starts with into the own memory."""
        torch._foreach_copy_(self._tensors, log_prob.tensors())
        self.state.positions.copy_(state.positions)
        self.state.log_prob.copy_(state.log_prob)
        self.width.copy_(width)
        self.accepted.zero_()

    def move(self, noise: Tensor, log_uniform: Tensor) -> None:
        """Repeat the recorded step with these random numbers."""
        self._noise.copy_(noise)
        self._log_uniform.copy_(log_uniform)
        self._repeat()

    def end(self) -> tuple[ChainState, Tensor]:
        """The state and the accepted moves, in memory of their own."""
        own = self.state
        return ChainState(own.positions.clone(), own.log_prob.clone(), None, own.displacement), self.accepted.clone()

    def _step(self) -> None:
        new, accept = step(self.log_prob, self.state, self.proposal, self.width, self._noise, self._log_uniform)
        self.state.positions.copy_(new.positions)
        self.state.log_prob.copy_(new.log_prob)
        self.accepted += accept


def make_moves(log_prob: LogProb, state: ChainState, proposal: Proposal, width: Tensor) -> Moves:
    """Recorded moves where they can be, else plain ones; both make the same chain."""
    recordable = isinstance(log_prob, PreparedLogProb) and type(proposal) is GaussianProposal
    moves = None
    if recordable and can_record(state.positions.device):
        assert isinstance(log_prob, PreparedLogProb)
        like = [*log_prob.tensors(), state.positions, state.log_prob, width]
        key = (type(log_prob), *((tuple(x.shape), x.stride(), x.dtype, x.device) for x in like))
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
