"""The exact F from above and below: from walkers and training to summary.json, the table and Python."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from lightning_vfe.analysis.bracket import bracket_lines, bracket_table
from lightning_vfe.analysis.psi_gap import OF_PSI, fit_variance_line
from lightning_vfe.analysis.run import RunFolder
from lightning_vfe.models.base.boltzmann import BoltzmannBase
from lightning_vfe.models.potential.yukawa import YukawaPotential
from lightning_vfe.physics.flow_gap import FlowGap, flow_gap
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.statistics import Estimate
from lightning_vfe.state.variational_state import VariationalState
from lightning_vfe.training.variational.bracket import Gaps, walker_free_energy_of_psi
from lightning_vfe.training.variational.callbacks import WriteSummary
from lightning_vfe.training.variational.measurement import Measurement
from lightning_vfe.training.variational.result_table import result_tables
from lightning_vfe.training.variational.state_result import StateResult
from lightning_vfe.training.variational.step_values import step_values
from tests.analysis.test_psi_gap import training
from tests.helpers.variational import build_run, build_state
from tests.training.variational.test_measurement import FIXED, SAMPLED, alone, part
from tests.training.variational.test_module import trainer

POINT = StatePoint(2.0, 6000.0)


def estimate_of(value: float, error: float) -> Estimate:
    return Estimate(value, error, 1.0, 500.0, 1.0)


def measured(state: VariationalState, steps: int = 4) -> StateResult:
    measurement = Measurement(state)
    measurement.reset()
    for _ in range(steps):
        batch = state.batch()
        measurement.add(batch, state.energies(batch))
    return measurement.result(0).states[0]


def gaps_of(result: StateResult) -> Gaps:
    assert result.gaps is not None
    return result.gaps


def test_the_gaps_of_walkers_are_those_of_their_energies() -> None:
    """F, noise and variance of each proton walker, put together by hand."""
    state = build_state({"temperature_kelvin": 6e5}, num_electron_walkers=3, num_proton_walkers=16)
    measurement, samples = Measurement(state), []
    measurement.reset()
    for _ in range(6):
        batch = state.batch()
        samples.append(state.energies(batch))
        measurement.add(batch, samples[-1])
    result = measurement.result(0).states[0]
    free = torch.stack([sample.terms["free_energy_per_atom"] for sample in samples])
    total = torch.stack([sample.electronic.total for sample in samples])  # (steps, W, B)
    gaps = gaps_of(result)
    expected = flow_gap(free, total.real.var(-1) / 3, 3, result.point.kT, 2)
    assert gaps.flow is not None
    assert gaps.of_psi == gaps.flow.free_energy
    assert gaps.flow.cumulant == pytest.approx(expected.cumulant)
    assert gaps.flow.gap == pytest.approx(expected.gap, abs=1e-10)
    assert (gaps.flow.noise, gaps.flow.weights_reason) == (pytest.approx(expected.noise), expected.weights_reason)
    spread = total.real.var(-1) + total.imag.var(-1)
    assert gaps.variance.value == pytest.approx(float(spread.mean()))
    assert result.diagnostics["local_energy_variance"] == pytest.approx(gaps.variance.value * 2 / 3)
    assert gaps.v_score[0] == pytest.approx(2 * float(spread.mean()) / float(total.real.mean()) ** 2)


@pytest.mark.parametrize("keys", [SAMPLED, FIXED], ids=["sampled", "fixed"])
def test_each_state_has_the_gaps_of_a_measurement_of_its_own(keys: dict[str, Any]) -> None:
    state = build_state(keys, trained=True, num_proton_walkers=24)
    singles = [alone(state, number) for number in range(state.strata.num_states)]
    together, each = Measurement(state), [Measurement(single) for single in singles]
    for measurement in (together, *each):
        measurement.reset()
    for _ in range(5):
        batch = state.batch()
        together.add(batch, state.energies(batch))
        for number, (single, measurement) in enumerate(zip(singles, each, strict=True)):
            walkers = part(state, batch, number)
            measurement.add(walkers, single.energies(walkers))
    for found, measurement in zip(together.result(0).states, each, strict=True):
        (only,) = measurement.result(0).states
        assert json.dumps(rounded(found.bracket())) == json.dumps(rounded(only.bracket()))
        assert (gaps_of(found).flow is None) == ("protons" in keys)


def rounded(content: Any) -> Any:
    """Numbers to eight digits."""
    if isinstance(content, dict):
        return {name: rounded(value) for name, value in content.items()}
    return float(f"{content:.8g}") if isinstance(content, float) else content


def test_the_error_of_ln_z_is_in_the_estimate() -> None:
    results = []
    for error in (0.0, 0.5):
        state = build_state({"temperature_kelvin": 6e5}, num_proton_walkers=16)
        (point,), density = state.strata.points, state.proton_density
        assert density is not None
        density.base = BoltzmannBase(point.cell(2), YukawaPotential(), point.temperature_kelvin, 12.3, error)
        results.append(measured(state))
    exact, noisy = (gaps_of(result).of_psi for result in results)
    assert exact is not None
    assert noisy is not None
    assert noisy.value == exact.value
    assert noisy.error == pytest.approx(math.hypot(exact.error, 0.5 * results[0].point.kT / 2))


def flow(**values: Any) -> FlowGap:
    gap, of_psi = estimate_of(0.002, 0.001), estimate_of(-0.982, 0.003)
    return FlowGap(**({"variance": 0.4, "noise": 1.2, "gap": gap, "cumulant": of_psi} | values))


def complete() -> Gaps:
    """F = -0.980(3), a flow gap of 0.002(1), and a line of slope 0.6."""
    found = Gaps(POINT, 2, 4, flow(weights_reason="too noisy"), estimate_of(0.02, 0.001), -1.7)
    found.of_psi = found.flow.free_energy if found.flow else None
    found.line = fit_variance_line(training(), 4, "energy_per_atom")
    return found


def test_the_parts_add_up() -> None:
    gaps = complete()
    content = gaps.as_dict(estimate_of(-0.98, 0.003))
    assert gaps.line is not None
    variance = 0.02 * 3 / 4 / 2  # per atom, as metrics.csv has it from four electron walkers
    psi = gaps.line.slope * variance
    psi_error = math.hypot(gaps.line.error * variance, psi * 0.05)
    values = {name: (entry["value"], entry["error"]) for name, entry in content.items() if "value" in entry}
    assert values["upper_bound_per_atom"] == (-0.98, 0.003)
    assert values["flow_gap_per_atom"] == (0.002, 0.001)
    assert values["psi_gap_per_atom"] == pytest.approx((psi, psi_error))
    assert values["exact_free_energy_per_atom"] == pytest.approx((-0.982 - psi, math.hypot(0.003, psi_error)))
    assert values["v_score"] == pytest.approx((2 * 0.02 / 1.7**2, 2 * 0.001 / 1.7**2))
    assert {entry["unit"] for name, entry in content.items() if name.endswith("_per_atom")} == {"Ha/atom"}
    assert content["flow"] == {"variance": 0.4, "noise": 1.2, "effective_sample_size": None}
    assert content["line"]["chi2"] == gaps.line.chi2
    lines = bracket_lines(content)
    assert len(lines) == 6
    assert lines[0] == "F of this run, upper bound: -0.9800(30) Ha/atom"
    assert lines[1] == "gap of the flow: 0.0020(10) Ha/atom (second order; too noisy)"
    assert "gap of psi: 0.00449(23) Ha/atom" in lines[3]
    assert lines[3].endswith("per degree of freedom)")
    assert lines[4].startswith("exact F, estimate: -0.986")


def test_the_orders_of_the_flow_are_named() -> None:
    gaps = complete()
    gaps.flow = flow(exponential=estimate_of(-0.983, 0.003), effective_sample_size=3210.0)
    line = bracket_lines(gaps.as_dict(estimate_of(-0.98, 0.003)))[1]
    assert line.endswith("(all orders; the weights exp(-A) have 3210 effective samples)")
    gaps.num_twists = 4
    line = bracket_lines(gaps.as_dict(estimate_of(-0.98, 0.003)))[1]
    assert "(all orders of each twist alone, which bounds the gap from above; the weights" in line


@pytest.mark.parametrize(
    ("changes", "is_refused", "missing"),
    [
        ({"line": None, "line_reason": "no curve"}, False, {"psi_gap": "no curve", "exact": "the gap of psi"}),
        (
            {"flow": FlowGap(reason="too far"), "of_psi": None},
            False,
            {"flow_gap": "too far", "free_energy_of_psi": "too far", "exact": "the gap of the flow is not known"},
        ),
        (
            {},
            True,
            {"upper_bound": "F is not reported", "flow_gap": "F is not", "free_energy_of_psi": "F", "exact": ""},
        ),
        (
            {"flow": FlowGap(reason="too far"), "of_psi": None, "line": None},
            False,
            {"exact": "the gap of the flow and that of psi is not known"}
            | {"flow_gap": "too far", "free_energy_of_psi": "too far", "psi_gap": ""},
        ),
        ({"num_electron_walkers": 1}, False, {"v_score": "one electron walker"}),
    ],
)
def test_what_is_missing_has_a_reason(changes: dict[str, Any], is_refused: bool, missing: dict[str, str]) -> None:
    gaps = complete()
    for name, value in changes.items():
        setattr(gaps, name, value)
    content = gaps.as_dict(None if is_refused else estimate_of(-0.98, 0.003))
    for name, entry in content.items():
        if name in ("flow", "line"):
            continue
        reason = next((text for start, text in missing.items() if name.startswith(start)), None)
        assert (entry["value"] is None) == (reason is not None), name
        if reason is not None:
            assert reason in entry["note"]
            assert entry["note"]
            assert any(line.endswith(f": not given: {entry['note']}") for line in bracket_lines(content))


def write_training(folder: Path, suffix: str = "", column: str = "free_energy_per_atom", settled: bool = True) -> Path:
    """A run folder whose metrics.csv has the synthetic training, with a flow that has no gap if it has settled."""
    folder.mkdir(exist_ok=True)
    table = training(steps=100).rename(columns=lambda name: name.replace("energy_per_atom", column) + suffix)
    if column == "free_energy_per_atom" and settled:
        table[f"{OF_PSI}{suffix}"] = table[f"free_energy_per_atom{suffix}"]
        table[f"{OF_PSI}_error{suffix}"] = table[f"free_energy_per_atom_error{suffix}"]
    table.to_csv(folder / "metrics.csv")
    return folder


@pytest.mark.parametrize("fixed", [False, True], ids=["sampled", "fixed"])
def test_test_writes_and_prints_the_bracket(tmp_path: Path, fixed: bool) -> None:
    """From metrics.csv of the run folder; F is fitted where protons are sampled, E where they are fixed."""
    column = "energy_per_atom" if fixed else "free_energy_per_atom"
    folder = write_training(tmp_path / "run", column=column)
    module, datamodule = build_run({"protons": "fixed"} if fixed else {}, test_steps=4)
    module.trained_steps += 100
    callback = WriteSummary(folder)
    trainer(1, callback).test(module, datamodule, verbose=False)
    content = json.loads((folder / "summary.json").read_text())["bracket"]
    line = fit_variance_line(training(steps=100), 2, "energy_per_atom")
    assert content["line"]["slope"] == pytest.approx(line.slope)
    logged = json.loads((folder / "summary.json").read_text())["diagnostics"]["local_energy_variance"]
    assert content["psi_gap_per_atom"]["value"] == pytest.approx(line.slope * logged / 2, rel=1e-6)
    assert content["upper_bound_per_atom"]["value"] is not None
    assert (content["flow"] is None) == fixed
    printed = [str(message) for message in callback.messages]
    symbol = "E" if fixed else "F"
    assert any(line.startswith(f"{symbol} of this run, upper bound: ") for line in printed)
    assert any(line.startswith("gap of psi: ") for line in printed)
    assert any(line.startswith(f"exact {symbol}, estimate: ") for line in printed)
    assert any(line.startswith("gap of the flow: ") for line in printed) != fixed
    table = bracket_table(RunFolder(folder))
    assert list(table.columns) == ["quantity", "value", "error", "unit", "note"]
    assert table.loc["psi_gap_per_atom", "value"] == content["psi_gap_per_atom"]["value"]


def test_several_states_have_lines_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_training(tmp_path / "run", suffix="@rs1.8_T5000")
    module, datamodule = build_run(SAMPLED, num_proton_walkers=12, test_steps=4)
    module.trained_steps += 100
    trainer(1, WriteSummary(folder)).test(module, datamodule, verbose=False)
    states = json.loads((folder / "summary.json").read_text())["states"]
    assert [state["bracket"]["line"] is None for state in states] == [False, True, True]
    assert "has no column of rs = 1.8, T = 9000 K" in states[1]["bracket"]["psi_gap_per_atom"]["note"]
    assert module.result is not None
    for message in result_tables(module.result):
        Console().print(message, soft_wrap=True)
    printed = capsys.readouterr().out
    assert "rs = 1.8, T = 5000 K: gap of the flow -, gap of psi " in printed
    assert "rs = 2.3, T = 9000 K: gap of the flow -, gap of psi -, exact F, estimate -" in printed


def test_steps_after_the_measured_ones_do_not_count(tmp_path: Path) -> None:
    """The checkpoint of an earlier step has the training up to there."""
    gaps, lines = complete(), []
    for last_step in (60, 100):
        gaps.fit_line(write_training(tmp_path), last_step, several=False)
        lines.append(gaps.line)
    assert lines[0] == fit_variance_line(training(steps=100)[:60], 2, "energy_per_atom")
    assert lines[1] == fit_variance_line(training(steps=100), 2, "energy_per_atom")
    assert lines[0] != lines[1]


def test_without_a_training_there_is_a_reason(tmp_path: Path) -> None:
    gaps = complete()
    gaps.line = None
    gaps.fit_line(tmp_path, 100, several=False)
    assert gaps.line is None
    assert gaps.line_reason == "the run folder holds no metrics.csv of the training"
    (tmp_path / "metrics.csv").write_text("loss\n1\n")
    gaps.fit_line(tmp_path, 100, several=False)
    assert gaps.line_reason.startswith(f"{tmp_path / 'metrics.csv'} has no column step")


def test_a_step_logs_the_free_energy_of_psi() -> None:
    """The mean of the walkers' numbers is F - kT/2 Var(A) / N, with the unbiased variance within each stratum."""
    noisy = torch.tensor([-0.9, -1.1, -0.8, -0.5, -1.0, -0.4], dtype=torch.float64)
    noise, stratum = 0.001 * torch.arange(6.0, dtype=torch.float64), torch.tensor([0, 1, 0, 1, 0, 1])
    kT, N = torch.full((6,), 0.25, dtype=torch.float64), 3
    each = walker_free_energy_of_psi(noisy, noise, kT, N, stratum, 2)
    for number in (0, 1):
        own = stratum == number
        variance = (N / 0.25) ** 2 * noisy[own].var() - noise[own].mean() / 0.25**2
        expected = noisy[own].mean() - 0.5 * 0.25 / N * variance
        assert float(each[own].mean()) == pytest.approx(float(expected))
    state = build_state({"temperature_kelvin": 6e5}, num_proton_walkers=16)
    batch = state.batch()
    sample = state.energies(batch)
    values = step_values(state, batch, sample)
    noise = sample.electronic.total.real.var(1) / 2
    one = walker_free_energy_of_psi(
        sample.terms["free_energy_per_atom"], noise, batch.states.kT, 2, batch.stratum, len(state.strata)
    )
    assert float(values[OF_PSI]) == pytest.approx(float(one.mean()))
    assert float(values[f"{OF_PSI}_error"]) > 0
    assert "noise" not in values
    fixed = build_state({"protons": "fixed"})
    batch = fixed.batch()
    assert OF_PSI not in step_values(fixed, batch, fixed.energies(batch))


def test_one_proton_walker_for_each_twist_logs_no_free_energy_of_psi(tmp_path: Path) -> None:
    state = build_state({"twists": [[0.0, 0.0, 0.0], [0.25, 0.1, -0.3]]}, num_proton_walkers=2, num_groups=1)
    batch = state.batch()
    values = step_values(state, batch, state.energies(batch))
    assert "free_energy_per_atom" in values
    assert OF_PSI not in values
    write_training(tmp_path, settled=False)
    gaps = complete()
    gaps.line = None
    gaps.fit_line(tmp_path, 100, several=False)
    assert gaps.line_reason.endswith(
        f"has no column {OF_PSI}; fit writes it if each twist has two proton walkers or more"
    )
