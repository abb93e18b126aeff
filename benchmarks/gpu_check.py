"""Check an accelerator: the same numbers as on the CPU and by graphs, the seconds of every phase, then a training.

    python benchmarks/gpu_check.py --seconds 200
    python benchmarks/gpu_check.py --seconds 60 --device cpu --sizes 8:8x4 --experiment smoke

Every line is flushed, and after each line the JSON file holds all numbers so far. The exit code is 1 where a number of
the accelerator differs from that of the CPU, one of the fused kernels from that of the plain code, or more than 1 % of
the chains of recorded moves from those of plain moves. No git, no internet and no installed package are needed;
PYTHONPATH may name the folder of the checkout.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gpu_numbers import check_graphs, check_kernels, check_numbers
from gpu_phases import table
from gpu_report import Report
from gpu_training import train

SIZES = ("16:16x8", "16:1024x8", "14:16x8", "14:1024x8", "54:16x8", "54:1024x8")


def attempt(report: Report, part: Callable[[], bool | None]) -> bool:
    """Run a part; one that fails is shown with its traceback, and the next one runs all the same."""
    try:
        return part() is not False
    except Exception:
        report.say(f"a part FAILED:\n{traceback.format_exc()}")
        return False


def main() -> int:
    """Run all three parts; see the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=200.0, help="time for everything")
    parser.add_argument("--device", default="cuda", help="cuda or cpu")
    parser.add_argument("--json", type=Path, default=Path("gpu_check.json"), help="file of all numbers")
    parser.add_argument("--sizes", nargs="*", default=SIZES, help="systems of the table, N:WxB")
    parser.add_argument("--experiment", default="h16_6000K_tabc", help="what is trained")
    parser.add_argument("--override", nargs="*", default=[], help="key=value of the experiment")
    parser.add_argument("--training-share", type=float, default=0.4, help="share of the time for the training")
    arguments = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    report = Report(arguments.json, arguments.seconds)
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu"
    report.content["device"] = f"{name}, torch {torch.__version__}, Python {sys.version.split()[0]}"
    report.say(report.content["device"])
    device, until = arguments.device, arguments.training_share * arguments.seconds
    good = attempt(report, lambda: check_numbers(report, device))
    good &= attempt(report, lambda: check_graphs(report, device))
    good &= attempt(report, lambda: device != "cuda" or check_kernels(report, device))
    good &= attempt(report, lambda: table(report, device, list(arguments.sizes), until))
    good &= attempt(report, lambda: train(report, device, arguments.experiment, arguments.override))
    report.say("done" if good else "done; NUMBERS DIFFER")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
