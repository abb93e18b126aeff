"""The command `lightning-vfe VERB key=value ...`: compose the config, build the objects, run a verb of Lightning."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from shutil import get_terminal_size

from lightning_vfe import __version__
from lightning_vfe.cli.exit_codes import FAILED, STOPPED, USAGE_ERROR
from lightning_vfe.cli.help import TRAINER_VERBS, VERBS, fitted_help, general_help, verb_help
from lightning_vfe.cli.output import lasting_output
from lightning_vfe.cli.processes import draw_into_files, print_error, wait_passively
from lightning_vfe.errors import CommandError, RunError, nearest
from lightning_vfe.signals import signal_of, signals_to, stop
from lightning_vfe.workflows.processes import check_launcher, forget_stale_ranks, is_first_process

HELP = ("--help", "-h")
HELP_ALL = "--help-all"
PRINT_CONFIG = ("--print-config", "--cfg")
MULTIRUN = ("--multirun", "-m")
ALIASES = {"integrate": "log-z"}
"""Former names of verbs, which stay valid."""
REQUIRE_CONVERGED = "--require-converged"
DRY_RUN = "--dry-run"
FLAGS = (*HELP, HELP_ALL, *PRINT_CONFIG, *MULTIRUN, REQUIRE_CONVERGED, DRY_RUN, "--version")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0; 2 after bad input (one line on stderr); 1 where the numbers of a run break down or the machine ends it (one line
    as well); 3 after `test --require-converged` where sampling or training has not converged; 128 + N after signal N,
    so 130 after Ctrl-C. The first process of several speaks.

    `sys.argv` stays as it is: Lightning starts the further processes of a distributed run with the same words.
    """
    wait_passively()
    draw_into_files()
    with lasting_output():
        try:
            with signals_to(stop):
                return _dispatch(list(sys.argv[1:] if argv is None else argv))
        except CommandError as error:
            print_error(str(error))
            return USAGE_ERROR
        except (FloatingPointError, RunError) as error:
            print_error(str(error))
            return FAILED
        except KeyboardInterrupt as error:
            if is_first_process():
                print("interrupted", file=sys.stderr)
            return STOPPED + signal_of(error)


def _dispatch(words: list[str]) -> int:
    flags = [word for word in words if word.startswith("-")]
    verb, *settings = [word for word in words if not word.startswith("-")] or [""]
    for flag in flags:
        if flag not in FLAGS:
            raise CommandError(f"unknown flag '{flag}'{nearest(flag, FLAGS)}")
    if "--version" in flags:
        print(__version__)
        return 0
    verb = ALIASES.get(verb, verb)
    if verb and verb not in VERBS:
        given = f"'{verb}' is no verb" if "=" in verb else f"unknown verb '{verb}'"
        raise CommandError(f"{given}{nearest(verb, VERBS)} (the verbs are: {', '.join(VERBS)})")
    if not verb or any(flag in HELP for flag in flags):
        return _show_help(verb_help(verb) if verb else general_help())
    if HELP_ALL in flags:
        return _show_help(verb_help(verb, with_all_keys=True))
    _check_working_directory()
    if any(flag in MULTIRUN for flag in flags):
        if verb not in TRAINER_VERBS or len(set(flags)) > 1:
            raise CommandError(f"--multirun goes with {', '.join(TRAINER_VERBS)}, and with no other flag")
        from lightning_vfe.cli.sweep import run_sweep

        return run_sweep(verb, settings)
    if REQUIRE_CONVERGED in flags and verb != "test":
        raise CommandError(f"{REQUIRE_CONVERGED} goes with test")
    return _run(verb, settings, set(flags))


def _check_working_directory() -> None:
    """Refuse to work in a folder that has been deleted, which Hydra and the paths of runs need.

    Raises:
        CommandError: it is gone.
    """
    try:
        os.getcwd()
    except OSError as error:
        raise CommandError(
            f"the working directory is gone ({error.strerror}); change into a folder that exists, with cd"
        ) from error


def _show(text: str) -> int:
    """Print a page; returns the exit code."""
    print(text, flush=True)
    return 0


def _show_help(text: str) -> int:
    """Print a help text, in whole lines where a program such as grep reads them; returns the exit code."""
    return _show(fitted_help(text, get_terminal_size().columns) if sys.stdout.isatty() else text)


def _run(verb: str, settings: list[str], flags: set[str]) -> int:
    # hydra and torch take seconds to import: only when there is something to do
    from lightning_vfe.cli.comments import commented_yaml
    from lightning_vfe.workflows.compose import RUN_ROOT, compose_config
    from lightning_vfe.workflows.overrides import parse, with_runs
    from lightning_vfe.workflows.plan import Plan, make_plan

    print_only = bool(flags & set(PRINT_CONFIG))
    if verb not in TRAINER_VERBS:
        check_launcher(1)
        forget_stale_ranks()
        if print_only:
            return _show(commented_yaml(compose_config(parse(with_runs(verb, settings)), root=verb), root=verb))
        return _run_command(verb, settings, DRY_RUN in flags)
    plan = Plan.received() or make_plan(verb, parse(settings))
    if print_only:
        return _show(commented_yaml(plan.config, RUN_ROOT))

    if plan.has_one_process:
        forget_stale_ranks()
    from lightning_vfe.cli.run import run_plan, try_plan

    if DRY_RUN in flags:
        return try_plan(plan)
    return run_plan(plan, REQUIRE_CONVERGED in flags)


def _run_command(verb: str, settings: list[str], is_dry_run: bool) -> int:
    """Run a verb that is no stage of Lightning's Trainer; returns the exit code."""
    from lightning_vfe.cli.banner import DryRun

    code = 0
    with suppress(DryRun):
        code = import_module(f"lightning_vfe.cli.{verb.replace('-', '_')}").run(settings, is_dry_run)
    if is_dry_run:
        print("dry run: nothing is written", flush=True)
    return code
