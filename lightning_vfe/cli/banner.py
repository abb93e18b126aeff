"""What a run is about, in a few lines at its start."""

from rich.console import Console
from rich.table import Table

from lightning_vfe.workflows.plan import Plan
from lightning_vfe.workflows.tasks import Rows


def print_banner(plan: Plan, rows: Rows) -> None:
    """Print what is computed from what by how many processes, the sizes of the networks and the run folder."""
    title = f"lightning-vfe {plan.verb}: {plan.config.name}"
    table = Table(title=title, title_justify="left", show_header=False, box=None)
    for name, text in rows:
        table.add_row(name, text)
    if plan.ckpt_path is not None:
        table.add_row("checkpoint", str(plan.ckpt_path))
    table.add_row("run folder", str(plan.run_dir))
    # a long path must stay in one piece
    Console(soft_wrap=True, highlight=False).print(table)
