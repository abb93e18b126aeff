"""What a fitted potential leaves in its run folder: the potential, its errors and the parity plots."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from rich.table import Table
from typing_extensions import override

from lightning_vfe.analysis.parity import PREDICTIONS, save_parity
from lightning_vfe.files import whole_file, write_json
from lightning_vfe.models.potential.storage import potential_hash, save_potential
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.units import HARTREE_PER_BOHR3_TO_GPA
from lightning_vfe.training.potential.datamodule import MOST_CELLS, LabelDataModule
from lightning_vfe.training.potential.loss import Prediction, predict
from lightning_vfe.training.potential.metrics import PotentialErrors
from lightning_vfe.training.potential.module import PotentialModule
from lightning_vfe.training.run.messages import Reporter
from lightning_vfe.training.supervised.labelled import LabelledSet

COLUMNS = {
    "energy_{}_per_atom": ("energy per atom", "mHa", 1e3),
    "force_{}": ("force component", "mHa/bohr", 1e3),
    "pressure_{}_gpa": ("pressure", "GPa", 1.0),
}

NUM_BINS = 4
"""Bins of rs in the tables where there are many cells."""


class PotentialReport(Reporter):
    """Writes `potential.pt` at the end of `fit`; a table, potential_summary.json and parity plots after `test`.

    Args:
        run_dir: the run folder.
    """

    @override
    @rank_zero_only
    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The potential with its errors on the test configurations."""
        module, datamodule = _parts(trainer)
        if not bool(torch.isfinite(module.best_loss)):
            self.messages.append("no potential is written: fit ended before the first validation")
            return
        predictions = _predictions(module, datamodule)
        region, errors = datamodule.region, errors_of(predictions)
        temperatures = sorted(set(region.get("temperature_kelvin", [])))
        metadata = {
            "rs_range": region["rs"],
            "num_atoms": sorted({part.cell.num_atoms for part in datamodule.train_sets}),
            "temperature_kelvin": temperatures if len(temperatures) > 1 else next(iter(temperatures), None),
            "label": datamodule.provenance(),
            "test_errors": errors["all"],
            "test_errors_by_cell": errors,
            "step": int(module.trained_steps),
        }
        file = self.run_dir / "potential.pt"
        save_potential(module.best, file, metadata)
        self.messages.append(f"potential: {file}")

    @override
    @rank_zero_only
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The table of `validate`."""
        if trainer.state.fn != "fit":
            module, _ = _parts(trainer)
            title = f"errors on validation, after {int(module.trained_steps)} steps"
            self.messages.append(error_table(errors_of(module.predictions), title))

    @override
    @rank_zero_only
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Table, files and figures."""
        module, datamodule = _parts(trainer)
        errors = errors_of(module.predictions)
        content = {
            "step": int(module.trained_steps),
            "potential_hash": potential_hash(module.best),
            "num_test": sum(len(labels) for labels, _ in module.predictions),
            "errors": errors,
            "label": datamodule.provenance(),
        }
        write_json(self.run_dir / "potential_summary.json", content)
        _save_predictions(module.predictions, self.run_dir / PREDICTIONS)
        title = f"errors on {content['num_test']} test configurations, after {content['step']} steps"
        self.messages.append(error_table(errors, title))
        self.messages += [f"figure: {file}" for file in save_parity(self.run_dir)]


def errors_of(predictions: list[tuple[LabelledSet, Prediction]]) -> dict[str, dict[str, float]]:
    """Errors of all configurations, and of those of each cell; many cells are put into bins of rs."""
    names = _cell_names([labels.cell for labels, _ in predictions])
    parts: dict[str, PotentialErrors] = {}
    for labels, predicted in predictions:
        for name in ("all", names[labels.cell]):
            parts.setdefault(name, PotentialErrors().to(labels.energy.device)).update(predicted, labels)
    return {name: part.compute() for name, part in parts.items()}


def _cell_names(cells: list[PeriodicCell]) -> dict[PeriodicCell, str]:
    """What the table calls each cell: its N and rs, or its bin of rs where there are more than MOST_CELLS."""
    if len(set(cells)) <= MOST_CELLS:
        return {cell: f"num_atoms={cell.num_atoms} rs={cell.rs:g}" for cell in cells}
    densities = [cell.rs for cell in cells]
    edges = np.linspace(min(densities), max(densities), NUM_BINS + 1)
    place = {cell: int(np.clip(np.searchsorted(edges, cell.rs, "right") - 1, 0, NUM_BINS - 1)) for cell in cells}
    return {
        cell: f"num_atoms={cell.num_atoms} rs={edges[place[cell]]:.3g}-{edges[place[cell] + 1]:.3g}"
        for cell in sorted(place, key=lambda cell: (cell.num_atoms, cell.rs))
    }


def error_table(errors: dict[str, dict[str, float]], title: str) -> Table:
    """The table of `test`."""
    table = Table(title=title)
    for heading in ("configurations", "quantity", "MAE", "RMSE", "unit"):
        table.add_column(heading, justify="right" if heading in ("MAE", "RMSE") else "left")
    for group, found in errors.items():
        for name, (quantity, unit, factor) in COLUMNS.items():
            if name.format("mae") in found:
                numbers = [f"{found[name.format(kind)] * factor:.3f}" for kind in ("mae", "rmse")]
                table.add_row(group, quantity, *numbers, unit)
    return table


def _predictions(module: PotentialModule, datamodule: LabelDataModule) -> list[tuple[LabelledSet, Prediction]]:
    batches = [batch.to(module.device) for batch in datamodule.test_dataloader()]
    return [(batch, predict(module.best, batch)) for batch in batches]


def _save_predictions(predictions: list[tuple[LabelledSet, Prediction]], file: Path) -> None:
    """Label, prediction, N and rs of every number, in Ha per atom, Ha/bohr, GPa and bohr. # (numbers, 4) each"""
    columns: dict[str, list[np.ndarray]] = {}

    def add(
        name: str, label: torch.Tensor | None, found: torch.Tensor | None, factor: float, cell: PeriodicCell
    ) -> None:
        if label is not None and found is not None:
            both = (torch.stack([label.flatten(), found.flatten()], dim=-1) * factor).cpu().numpy()
            place = np.broadcast_to([cell.num_atoms, cell.rs], both.shape)
            columns.setdefault(name, []).append(np.concatenate([both, place], axis=1))

    for labels, predicted in predictions:
        cell = labels.cell
        add("energy_per_atom", labels.energy, predicted.energy, 1.0 / cell.num_atoms, cell)
        add("force", labels.forces, predicted.forces, 1.0, cell)
        add("pressure_gpa", labels.pressure, predicted.pressure, HARTREE_PER_BOHR3_TO_GPA, cell)
    with whole_file(file, "wb") as stream:
        np.savez(stream, allow_pickle=False, **{name: np.concatenate(parts) for name, parts in columns.items()})


def _parts(trainer: L.Trainer) -> tuple[PotentialModule, LabelDataModule]:
    module, datamodule = trainer.lightning_module, trainer.datamodule  # type: ignore[attr-defined]
    if not (isinstance(module, PotentialModule) and isinstance(datamodule, LabelDataModule)):
        raise TypeError("PotentialReport works with PotentialModule and LabelDataModule")
    return module, datamodule
