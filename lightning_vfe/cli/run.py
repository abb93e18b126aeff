"""The verbs of Lightning's Trainer: print the banner, what the run has found, and what to do next."""

import shlex

from rich.console import Console

from lightning_vfe.cli.banner import print_banner
from lightning_vfe.cli.exit_codes import NOT_CONVERGED, STOPPED
from lightning_vfe.workflows.dry_run import dry_run
from lightning_vfe.workflows.plan import Plan
from lightning_vfe.workflows.processes import is_first_process
from lightning_vfe.workflows.run import Observer, RunResult, run


def run_plan(plan: Plan, require_converged: bool = False) -> int:
    """Run the planned verb; returns the exit code, NOT_CONVERGED where a result must have converged and has not."""
    result = run(plan, Observer(say=_say, begin=print_banner, progress=True))
    if is_first_process():
        console = Console(markup=False)
        for message in result.messages:
            console.print(message, soft_wrap=True, highlight=not isinstance(message, str))
        _say_what_next(plan, result)
    if result.signal and Plan.received() is None:
        return STOPPED + result.signal
    if require_converged and not result.is_converged and Plan.received() is None:
        return NOT_CONVERGED
    return 0  # Lightning takes any other code of a process that it started for a crash


def try_plan(plan: Plan) -> int:
    """Say what the planned verb would cost, and write nothing; returns the exit code."""
    dry_run(plan, Observer(say=_say, begin=print_banner))
    print("dry run: a few steps were timed, nothing is written")
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _say_what_next(plan: Plan, result: RunResult) -> None:
    here = f"run_dir={plan.run_dir}"
    if result.signal and result.is_saved:
        print(f"interrupted; resume with: {shlex.join(['lightning-vfe', plan.verb, 'ckpt_path=last', here])}")
    elif result.signal:
        print("interrupted before the first save; nothing is saved")
    elif plan.verb == "fit" and result.is_saved:
        print(f"next: {shlex.join(['lightning-vfe', 'test', here])}")
    elif plan.verb == "fit":
        print(f"no checkpoint in {plan.run_dir / 'checkpoints'}; there is nothing to test")
