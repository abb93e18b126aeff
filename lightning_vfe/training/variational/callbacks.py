"""What runs beside the steps: the progress bar and the summary."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from typing_extensions import override

from lightning_vfe.analysis.figures import save_figures
from lightning_vfe.analysis.folder import tables_folder
from lightning_vfe.errors import one_line
from lightning_vfe.physics.statistics import Estimate
from lightning_vfe.state.batch import Batch
from lightning_vfe.training.run.messages import Reporter
from lightning_vfe.training.run.step_bar import PROBED, StepBar
from lightning_vfe.training.variational.module import VariationalFreeEnergy
from lightning_vfe.training.variational.result_table import result_tables
from lightning_vfe.training.variational.summary import TestResult

ACCEPTANCES = {"acc_p": "proton_acceptance", "acc_e": "electron_acceptance", "acc_d": "delayed_acceptance"}
"""Accepted fractions behind the count, where a run has them."""
MOST_STATES = 3
"""State points whose F fits behind the count."""
FIRST = ("F", "S", "P", *ACCEPTANCES)
"""What a narrow terminal shows first."""
SLOW_STEP = 10.0
"""Seconds: the first evaluation of a quicker step is slower than the others, and does not tell their time."""


class ProgressBar(StepBar):
    """F +- error, S, P and E over the last steps, with acceptances and R-hat. For watching: results come from `test`.

    With several state points F of the first three of them. Before the first step a line estimates how long all steps
    will take: the time of the first sweep, and of one evaluation of what a step computes after it.
    """

    def __init__(self, progress_seconds: float = 30.0) -> None:
        super().__init__(progress_seconds)
        self._ready = 0.0  # when the walkers were ready for the first sweep

    @override
    def track(self, what: str, parts: Iterable[int], total: int) -> Iterator[int]:
        """The parts; after the last one the walkers are ready."""
        yield from super().track(what, parts, total)
        self._ready = time.monotonic()

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The walkers of a checkpoint are ready."""
        self._ready = time.monotonic()

    @override
    def begin(self, what: str, done: int, total: float, batch: Any) -> None:
        """Estimate the time of all steps, and show where the run stands."""
        module = self.trainer.lightning_module
        is_short = 0 < total <= done + PROBED + 1
        if is_short or not isinstance(module, VariationalFreeEnergy):
            super().begin(what, done, total, batch)
        else:
            sweep = time.monotonic() - self._ready
            seconds = rehearse(module, batch)
            if self.trainer.strategy.broadcast(seconds) < SLOW_STEP:
                seconds = rehearse(module, batch)
            super().begin(what, done, total, batch)
            ends = "; target_error may end it earlier" if what == "test" and module.ending.wanted else ""
            self.say_cost(what, sweep + seconds, done, total, f" (estimate{ends})")

    @override
    def values(self, _trainer: L.Trainer, module: L.LightningModule, batch: Any) -> dict[str, str]:
        """F first; in `test` with a wanted error, the errors so far."""
        if not isinstance(module, VariationalFreeEnergy) or not module.recent:
            return {}
        found = recent_estimates(module)
        for label, name in ACCEPTANCES.items():
            if name in batch.report:
                found[label] = f"{float(batch.report[name]):.2f}"
        order = FIRST if "E" not in found or "F" in found else ("E", *FIRST)
        first = {name: found.pop(name) for name in order if name in found}
        return module.ending.progress() | first | found


def rehearse(module: VariationalFreeEnergy, batch: Batch) -> float:
    """Compute what a step computes after its sweep, without any effect. All processes take part.

    Args:
        module: in `fit`, `validate` or `test`.
        batch: the walkers after a sweep.

    Returns:
        The time in seconds.
    """
    began = time.monotonic()
    sample = module.state.energies(batch)
    if module.trainer.state.fn == "fit" and module.automatic_optimization:
        learnt = [parameter for parameter in module.parameters() if parameter.requires_grad]
        torch.autograd.grad(module.loss(batch, sample), learnt, allow_unused=True)
    elif module.trainer.state.fn == "fit":
        module.score_blocks(batch, sample)
    if batch.protons.is_cuda:
        torch.cuda.synchronize(batch.protons.device)
    return time.monotonic() - began


def recent_estimates(module: VariationalFreeEnergy) -> dict[str, str]:
    """F +- error, E, S, P and R-hat of the last steps, of the walkers of this process; all finite, or left out."""
    state, series = module.state, torch.stack(list(module.recent), dim=1)  # (terms, steps, samples)
    series = series[:, torch.isfinite(series).all(dim=-1).all(dim=0)]
    several = state.strata.num_states > 1
    if series.shape[1] == 0:
        return dict.fromkeys(("F",) if several else ("F", "E", "S", "P", "R-hat"), "nan")
    stratum = state.independent_strata(state.current()).cpu()
    found = [state.strata.estimate(term, stratum) for term in series]  # by term, then by state point
    points = list(zip(state.strata.points, found[0], strict=True))
    if several:
        return {f"F({point.rs:g},{point.temperature_kelvin:g})": _f(each) for point, each in points[:MOST_STATES]}
    if not state.system.num_protons:
        energy, pressure = found[1][0], found[2][0]
        return {"E": _f(energy), "P": f"{pressure.value:.3g}"} | _r_hat(energy)
    free_energy, energy, entropy, pressure = (term[0] for term in found)
    if state.sampler.proton_sampling == "ceimc" and not state.is_fixed:  # F is not that of these chains
        return {"E": _f(energy), "P": f"{pressure.value:.0f}"} | _r_hat(energy)
    shown = {"F": _f(free_energy), "E": f"{energy.value:.4f}", "S": f"{entropy.value:.2f}"}
    return shown | {"P": f"{pressure.value:.0f}"} | _r_hat(free_energy)


def _r_hat(found: Estimate) -> dict[str, str]:
    """R-hat, once there are steps enough to know it."""
    return {} if math.isnan(found.r_hat) else {"R-hat": f"{found.r_hat:.2f}"}


def _f(free_energy: Any) -> str:
    return f"{free_energy.value:.4f}+-{free_energy.error:.4f}"


class WriteSummary(Reporter):
    """After `test`: summary.json, pair_correlation.csv and the figures in the run folder, and the table as a message.

    `fit` ends with the figure of its curves, `validate` with the table only.

    Args:
        run_dir: the run folder.
    """

    @override
    @rank_zero_only
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Files, figures and table."""
        result = _result(pl_module)
        folder = tables_folder(self.run_dir, "ceimc" if result.is_ceimc else "")
        folder.mkdir(exist_ok=True)
        result.fit_lines(self.run_dir)
        result.judge(self.run_dir)
        result.write(folder, self.provenance())
        self.messages += result_tables(result)
        if result.is_ceimc:
            self.messages.append(f"tables: {folder}")
        else:
            self._draw()

    @override
    @rank_zero_only
    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Figure of the training curves, where there is a run folder with curves to draw."""
        if (self.run_dir / "config.yaml").is_file() and (self.run_dir / "metrics.csv").is_file():
            self._draw()

    def _draw(self) -> None:
        if not (self.run_dir / "config.yaml").is_file():
            return
        try:
            self.messages += [f"figure: {file}" for file in save_figures(self.run_dir)]
        except (ValueError, OSError) as error:  # a file that was damaged meanwhile must not take the result along
            self.messages.append(f"no figures: {one_line(error)}")

    @override
    @rank_zero_only
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Table."""
        result = _result(pl_module)
        result.fit_lines(self.run_dir)
        result.judge(self.run_dir)
        self.messages += result_tables(result)


def _result(module: L.LightningModule) -> TestResult:
    if not isinstance(module, VariationalFreeEnergy) or module.result is None:
        raise TypeError(f"WriteSummary works with VariationalFreeEnergy, not with {type(module).__name__}")
    return module.result
