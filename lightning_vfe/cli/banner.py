"""What a command is about, in a few lines at its start, and how far it is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from lightning_vfe.progress import ProgressLine
from lightning_vfe.workflows.plan import Plan
from lightning_vfe.workflows.tasks import Rows


def print_banner(plan: Plan, rows: Rows) -> None:
    """Print what is computed from what by how many processes, the sizes of the networks and the run folder."""
    checkpoint = [] if plan.ckpt_path is None else [("checkpoint", str(plan.ckpt_path))]
    print_rows(plan.verb, plan.config.name, [*rows, *checkpoint, ("run folder", str(plan.run_dir))])


def print_rows(verb: str, name: str, rows: Rows) -> None:
    """Print a title with the verb and the name of the run, and rows of a name and a text below it."""
    table = Table(title=f"lightning-vfe {verb}: {name}", title_justify="left", show_header=False, box=None)
    for title, text in rows:
        table.add_row(title, text)
    # a long path must stay in one piece
    Console(soft_wrap=True, highlight=False, markup=False).print(table)


class DryRun(Exception):
    """The banner of a dry run is printed, and nothing more is wanted."""


class Watch:
    """Banner and progress of a verb that is no stage of Lightning's Trainer.

    Args:
        verb: of the command line.
        is_dry_run: end after the banner.
    """

    def __init__(self, verb: str, is_dry_run: bool = False) -> None:
        self.verb, self.is_dry_run = verb, is_dry_run
        self._line: ProgressLine | None = None

    def begin(self, config: DictConfig, rows: Mapping[str, Any]) -> None:
        """Print the banner.

        Raises:
            SettingError: progress_seconds is not positive.
            DryRun: nothing more is wanted.
        """
        self._line = ProgressLine(config.progress_seconds)
        shown = [(name, str(value)) for name, value in rows.items()]
        print_rows(
            self.verb, config.get("name") or Path(config.run_dir).name, [*shown, ("run folder", str(config.run_dir))]
        )
        if self.is_dry_run:
            raise DryRun

    def progress(self, what: str, done: int, total: int) -> None:
        """Show how many parts of a work are done."""
        if self._line is not None:
            self._line.show(what, done, total)
            if done >= total:
                self._line.close()

    def close(self) -> None:
        """Leave the progress as it stands."""
        if self._line is not None:
            self._line.close()
