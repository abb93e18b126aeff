"""What a flow trained by maximum likelihood leaves in its run folder."""

from __future__ import annotations

import math

import lightning as L
from lightning.pytorch.utilities import rank_zero_only
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text
from typing_extensions import override

from lightning_vfe.files import write_json
from lightning_vfe.training.flow_mle.module import FlowMaximumLikelihood
from lightning_vfe.training.run.messages import Reporter

ROWS = {
    "negative_log_likelihood": ("-<ln p>, held-out data", "1, lengths in bohr"),
    "kl_data_model": ("KL(data || p)", "1"),
    "kl_model_data": ("KL(p || Boltzmann) = (F_p-F)/kT", "1"),
    "model_free_energy": ("F_p = <E + kT ln p>_p", "Ha"),
    "data_free_energy": ("F = -kT ln Z", "Ha"),
}
"""Title and unit of each quantity, all per atom."""


class FlowReport(Reporter):
    """The table of `validate` and `test`; after `test` also flow_summary.json.

    Args:
        run_dir: the run folder.
    """

    @rank_zero_only
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Table, not during `fit`."""
        if trainer.state.fn != "fit":
            self.messages += _tables(_module(pl_module))

    @override
    @rank_zero_only
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Table and file."""
        module = _module(pl_module)
        system = {"num_atoms": module.cell.num_atoms, "rs": module.cell.rs}
        content: dict[str, object] = {
            "system": system | {"temperature_kelvin": module.point.temperature_kelvin},
            "step": int(module.trained_steps),
            "negative_determinants": module.negative_determinants,
        }
        for name, found in module.estimates.items():
            # a map that folds has no normalised density
            known = module.negative_determinants == 0.0 and math.isfinite(found.value)
            value, error = (found.value, found.error) if known else (None, None)
            content[f"{name}_per_atom"] = {"value": value, "error": error}
        write_json(self.run_dir / "flow_summary.json", content)
        self.messages += _tables(module)


def _tables(module: FlowMaximumLikelihood) -> list[RenderableType]:
    table = Table(title=f"per atom, after {int(module.trained_steps)} steps; errors are one standard error")
    for heading, side in (("quantity", "left"), ("value", "right"), ("error", "right"), ("unit", "left")):
        table.add_column(heading, justify=side)  # type: ignore[arg-type]
    for name, (title, unit) in ROWS.items():
        if name in module.estimates:
            found = module.estimates[name]
            table.add_row(title, f"{found.value:.5f}", f"{found.error:.5f}", unit)
    if module.negative_determinants == 0.0:
        return [table]
    reason = f"det dz/dx is negative for a fraction {module.negative_determinants:.2e} of the configurations"
    return [table, Text(f"NOT VALID: {reason}: the map folds; lower optimizer.optimizer.lr", style="bold red")]


def _module(module: L.LightningModule) -> FlowMaximumLikelihood:
    if not isinstance(module, FlowMaximumLikelihood):
        raise TypeError(f"FlowReport works with FlowMaximumLikelihood, not with {type(module).__name__}")
    return module
