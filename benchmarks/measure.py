"""What a piece of work costs: processor seconds, operations, bytes, memory, and what the machine could do at best."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import math
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from lightning_vfe.physics.chunking import keep_freed_memory

FUNCTIONS = ("tanh", "sin", "cos", "exp", "expm1", "log", "log1p", "erf", "erfc", "sigmoid", "softplus", "sqrt", "pow")
"""Elementwise operations that cost a series or a division instead of one multiplication."""
FACTORISATIONS = {
    "linalg_inv_ex": 2.0,
    "_linalg_slogdet": 2.0 / 3.0,
    "linalg_lu_factor_ex": 2.0 / 3.0,
    "_linalg_eigh": 9.0,
}
"""Flops over n^3 of a real n x n matrix (Golub and Van Loan, Matrix Computations)."""
COMPLEX_FLOPS = 4
"""Real multiply-adds in a complex one."""


class Machine(NamedTuple):
    """What this machine reached, in the type of numbers of the run."""

    product_flops: float
    """Matrix product of 1024 x 1024, flops a second."""
    functions: float
    """tanh of 32 kB, values a second."""
    copy_bytes: float
    """Copy of 256 MB, bytes read and written a second."""


class Cost(NamedTuple):
    """One phase."""

    seconds: float
    """Processor seconds on a CPU; on an accelerator seconds of the clock, with everything finished."""
    flops: float
    """Of matrix products and factorisations, and one for each value that another operation makes."""
    functions: float
    """Values of tanh, sin, erfc and the like."""
    bytes: float
    """Read and written by all operations, as if there were no cache."""
    peak_bytes: float
    """Largest memory above that at the start; nan where the system does not tell."""

    def times(self, factor: float) -> Cost:
        """As many repetitions, one after the other."""
        return Cost(*(factor * each for each in self[:-1]), self.peak_bytes)


class Work(TorchDispatchMode):
    """Counts the work of everything that runs inside."""

    def __init__(self) -> None:
        super().__init__()
        self.flops, self.functions, self.bytes = 0.0, 0.0, 0.0
        self.operations = 0
        """What is dispatched, without views."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.operations += not func.is_view
        results = [each for each in (out if isinstance(out, tuple | list) else [out]) if isinstance(each, Tensor)]
        if not results or func.is_view:
            return out
        inputs = list(_tensors((args, kwargs or {})))
        self.bytes += sum(each.numel() * each.element_size() for each in [*inputs, *results])
        name, size = func._schema.name.removeprefix("aten::").rstrip("_"), results[0].numel()
        complex_factor = COMPLEX_FLOPS if any(each.is_complex() for each in results) else 1
        if func.overloadpacket in flop_registry:
            count = flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=out)
            self.flops += complex_factor * count
        elif name in FACTORISATIONS:
            order = inputs[0].shape[-1]
            self.flops += complex_factor * FACTORISATIONS[name] * inputs[0].numel() * order
        elif name in FUNCTIONS:
            self.functions += size
        else:
            # A sum makes one value out of many: its inputs count.
            self.flops += max(size, max((each.numel() for each in inputs), default=0) if name in ("sum", "mean") else 0)
        return out


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        for each in tree.values():
            yield from _tensors(each)
    elif isinstance(tree, tuple | list):
        for each in tree:
            yield from _tensors(each)


def add_device(parser: argparse.ArgumentParser) -> None:
    """The options of all benchmarks: device, dtype, and time for the repetitions."""
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float64")
    parser.add_argument("--budget", type=float, default=4.0, help="seconds of repetitions for each number")


def seconds_of(function: Callable[[], Any], device: torch.device, budget: float = 4.0, most: int = 5) -> float:
    """Best of up to `most` repetitions, fewer where they take more than `budget` seconds together."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    best, spent, count = math.inf, 0.0, 0
    while count == 0 or (count < most and spent + best < budget):
        _finish(device)
        start = clock()
        function()
        _finish(device)
        taken = clock() - start
        best, spent, count = min(best, taken), spent + taken, count + 1
    return best


def measure(function: Callable[[], Any], device: torch.device, budget: float = 4.0) -> Cost:
    """Cost of a call: first its memory, then its seconds, last its work."""
    with peak_memory(device) as memory:
        function()
    seconds = seconds_of(function, device, budget)
    with Work() as work:
        function()
    return Cost(seconds, work.flops, work.functions, work.bytes, memory["peak"])


def measure_machine(device: torch.device, dtype: torch.dtype) -> Machine:
    """The largest rates that simple operations reach here."""
    square = torch.rand(1024, 1024, device=device, dtype=dtype)
    short = torch.rand(2**12 if device.type == "cpu" else 2**24, device=device, dtype=dtype)
    source = torch.rand(2**25, device=device, dtype=torch.float32)
    target = torch.empty_like(source)
    out = torch.empty_like(square)

    def many_short() -> None:
        for _ in range(100):
            torch.tanh(short)

    product = seconds_of(lambda: torch.mm(square, square, out=out), device, 1.0, 10)
    functions = seconds_of(many_short, device, 1.0, 10) / 100
    copy = seconds_of(lambda: target.copy_(source), device, 1.0, 10)
    return Machine(2.0 * 1024**3 / product, short.numel() / functions, 8.0 * source.numel() / copy)


def describe(device: torch.device) -> dict[str, str]:
    """Machine and versions, for the record."""
    model = platform.processor() or platform.machine()
    if device.type == "cuda":
        model = torch.cuda.get_device_name(device)
    elif Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return {"machine": model, "threads": str(torch.get_num_threads()), **versions, "date": time.strftime("%Y-%m-%d")}


def start_on_one_thread() -> None:
    """One thread of the CPU, float64, memory as the command keeps it; prints what machine this is."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    keep_freed_memory()
    print(", ".join(f"{key} {value}" for key, value in describe(torch.device("cpu")).items()))


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def peak_memory(device: torch.device) -> Iterator[dict[str, float]]:
    """Largest memory inside above that at the start, in bytes, as {"peak": ...} afterwards."""
    found = {"peak": math.nan}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        start = torch.cuda.memory_allocated(device)
        yield found
        found["peak"] = float(torch.cuda.max_memory_allocated(device) - start)
        return
    try:
        # Freed pages would hide what is taken anew; then Linux sets its high-water mark back to the present.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        resettable = True
    except (OSError, AttributeError):
        resettable = False
    before = _resident()
    yield found
    if resettable:
        found["peak"] = _resident("VmHWM") - before


def _resident(entry: str = "VmRSS") -> float:
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1.0 if sys.platform == "darwin" else 1024.0)
    line = next(line for line in status.read_text().splitlines() if line.startswith(entry))
    return 1024.0 * float(line.split()[1])
