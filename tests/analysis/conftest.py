"""Run folders as `fit` and `test` leave them, with made-up numbers of a realistic size."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

# (first value, last value, error of a step) of the training curves; dense hydrogen at rs = 1.25
SAMPLED = {
    "free_energy_per_atom": (-0.38, -0.547, 0.004),
    "energy_per_atom": (-0.27, -0.436, 0.0045),
    "kinetic_energy_per_atom": (1.05, 0.882, 0.008),
    "electron_kinetic_energy_per_atom": (1.02, 0.853, 0.008),
    "v_pp_per_atom": (-0.40, -0.512, 0.006),
    "v_pe_per_atom": (-0.42, -0.306, 0.012),
    "v_ee_per_atom": (-0.50, -0.500, 0.004),
    "entropy_per_atom": (7.0, 5.84, 0.05),
    "pressure_gpa": (1300.0, 645.0, 14.0),
    "base_free_energy_per_atom": (-0.0404, -0.0404, 0.0),
    "log_det_per_atom": (0.0, -1.1, 0.04),
}
FIXED = SAMPLED | {
    "v_pp_per_atom": (-0.71, -0.71, 0.0),
    "entropy_per_atom": (0.0, 0.0, 0.0),
}
FIXED = {name: FIXED[name] for name in SAMPLED if name not in ("base_free_energy_per_atom", "log_det_per_atom")}
FIXED["free_energy_per_atom"] = FIXED["energy_per_atom"]


def write_metrics(folder: Path, terms: dict[str, tuple[float, float, float]], num_steps: int, seed: int = 1) -> None:
    """metrics.csv: curves that fall towards the last value, correlated noise, and wild first steps."""
    rng = np.random.default_rng(seed)
    step = np.arange(num_steps)
    columns: dict[str, np.ndarray] = {"step": step}
    for name, (first, last, error) in terms.items():
        noise = rng.normal(0.0, error, num_steps)
        noise[1:] = 0.6 * noise[:-1] + 0.8 * noise[1:]
        wild = np.where(step < num_steps // 50, 60.0 * error * rng.exponential(1.0, num_steps), 0.0)
        columns[name] = last + (first - last) * np.exp(-step / (0.12 * num_steps)) + noise + wild
        columns[f"{name}_error"] = error * rng.uniform(0.8, 1.2, num_steps)
    if terms["free_energy_per_atom"] == terms["energy_per_atom"]:
        columns["free_energy_per_atom"] = columns["energy_per_atom"]
    columns["local_energy_variance"] = 0.3 + 3.0 * np.exp(-step / (0.1 * num_steps)) + rng.exponential(0.05, num_steps)
    columns["electron_acceptance"] = np.full(num_steps, 0.5)
    pd.DataFrame(columns).to_csv(folder / "metrics.csv", index=False)


def write_summary(folder: Path, terms: dict[str, tuple[float, float, float]], system: dict[str, object]) -> None:
    """summary.json as after `test`."""
    content: dict[str, object] = {"system": system}
    content |= {name: {"value": last, "error": error / 8} for name, (_, last, error) in terms.items()}
    content["diagnostics"] = {"local_energy_variance": 0.34, "r_hat": 1.01, "effective_sample_size": 4000.0}
    content |= {"converged": True, "reasons": []}
    (folder / "summary.json").write_text(json.dumps(content))


def write_pair_correlation(folder: Path) -> None:
    """g(r) of a fluid in which molecules still show."""
    rng = np.random.default_rng(2)
    r = (np.arange(50) + 0.5) * 0.0403
    wall = 1.0 / (1.0 + np.exp(-(r - 1.0) / 0.1))
    curves = {
        "proton_proton": wall * (1.0 + 0.5 * np.exp(-(((r - 1.45) / 0.25) ** 2))),
        "proton_electron": 1.0 + 3.2 * np.exp(-2.0 * r) - 0.35 * np.exp(-(((r - 1.5) / 0.6) ** 2)),
        "electron_electron_like": 1.0 - np.exp(-((r / 0.95) ** 2)),
        "electron_electron_unlike": 1.0 - 0.62 * np.exp(-r / 0.6),
    }
    table = pd.DataFrame({"r_bohr": r})
    for name, curve in curves.items():
        error = 0.012 / r * np.sqrt(curve + 1e-3)
        table[name] = np.maximum(0.0, curve + rng.normal(0.0, error))
        table[f"{name}_error"] = error
    table.to_csv(folder / "pair_correlation.csv", index=False)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """make_run(protons="sampled", tested=True, num_steps=500): writes a run folder and returns it."""

    def make(protons: str = "sampled", tested: bool = True, num_steps: int = 500) -> Path:
        folder = tmp_path / "runs" / f"{protons}-{num_steps}"
        folder.mkdir(parents=True)
        system: dict[str, object] = {"num_atoms": 8, "rs": 1.25, "protons": protons}
        lines = [f"  {key}: {value}" for key, value in (system | {"temperature_kelvin": 6000.0}).items()]
        (folder / "config.yaml").write_text("\n".join(["system:", *lines, "cell:", "  rs: ${system.rs}", ""]))
        terms = FIXED if protons == "fixed" else SAMPLED
        write_metrics(folder, terms, num_steps)
        if tested:
            write_summary(folder, terms, system | ({} if protons == "fixed" else {"temperature_kelvin": 6000.0}))
            write_pair_correlation(folder)
        return folder

    return make


def shifted(protons: str, rs: float, kelvin: float) -> dict[str, tuple[float, float, float]]:
    """The curves at another density and temperature, roughly as dense hydrogen has them."""
    dilute, hot = rs - 1.25, (kelvin - 6000.0) / 6000.0 if kelvin else 0.0
    shifts = {
        "free_energy_per_atom": -0.08 * dilute - 0.11 * hot,
        "energy_per_atom": -0.08 * dilute + 0.03 * hot,
        "kinetic_energy_per_atom": -0.5 * dilute + 0.03 * hot,
        "v_pe_per_atom": 0.4 * dilute,
        "entropy_per_atom": 2.0 * dilute + 1.2 * hot,
        "pressure_gpa": -640.0 * (1.0 - (1.25 / rs) ** 4) + 60.0 * hot,
    }
    terms = FIXED if protons == "fixed" else SAMPLED
    if protons == "fixed":
        shifts["entropy_per_atom"] = 0.0
    moved = {name: shifts.get(name, 0.0) for name in terms}
    return {name: (first + moved[name], last + moved[name], error) for name, (first, last, error) in terms.items()}


def write_states(folder: Path, places: dict[str, tuple[float, float]], protons: str, tested: bool) -> None:
    """metrics.csv, summary.json and pair_correlation.csv of several states, put together from those of each."""
    common = ["step", "electron_acceptance"]
    metrics, pairs, entries = [], [], []
    for number, (suffix, (rs, kelvin)) in enumerate(places.items()):
        part = folder / "part"
        part.mkdir()
        terms = shifted(protons, rs, kelvin)
        write_metrics(part, terms, 500, seed=number)
        table = pd.read_csv(part / "metrics.csv")
        own = table.drop(columns=common).add_suffix(f"@{suffix}")
        metrics.append(own if metrics else pd.concat([table[common], own], axis=1))
        write_summary(part, terms, {})
        entry = json.loads((part / "summary.json").read_text())
        del entry["system"]
        entries.append({"rs": rs} | ({} if protons == "fixed" else {"temperature_kelvin": kelvin}) | entry)
        write_pair_correlation(part)
        block = pd.read_csv(part / "pair_correlation.csv")
        block["r_bohr"] *= rs / 1.25  # the bins follow the cell
        block.insert(0, "rs", rs)
        block.insert(1, "temperature_kelvin", 0.0 if protons == "fixed" else kelvin)
        pairs.append(block)
        for file in part.iterdir():
            file.unlink()
        part.rmdir()
    pd.concat(metrics, axis=1).to_csv(folder / "metrics.csv", index=False)
    if tested:
        pd.concat(pairs).to_csv(folder / "pair_correlation.csv", index=False)
        content: dict[str, object] = {"system": {"num_atoms": 8, "protons": protons, "nucleus": "H"}, "step": 500}
        content |= {"states": entries, "diagnostics": {"electron_acceptance": 0.5, "electron_drift": 0.01}}
        (folder / "summary.json").write_text(json.dumps(content | {"converged": True, "reasons": []}))


@pytest.fixture
def make_states(tmp_path: Path) -> Callable[..., Path]:
    """make_states(rs, temperatures): writes the folder of a run of every pair, or of `pairs`, and returns it."""

    def make(
        rs: list[float],
        temperatures: list[float],
        protons: str = "sampled",
        tested: bool = True,
        pairs: list[list[float]] | None = None,
        name: str = "states",
    ) -> Path:
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        settings = {"num_atoms": 8, "rs": rs, "temperature_kelvin": temperatures, "states": pairs}
        config = {"system": settings | {"protons": protons, "nucleus": "H"}}
        (folder / "config.yaml").write_text(json.dumps(config))  # YAML holds JSON
        if protons == "fixed":
            places = {f"rs{density:g}": (density, 0.0) for density in rs}
        else:
            chosen = pairs or [[density, kelvin] for density in rs for kelvin in temperatures]
            places = {f"rs{density:g}_T{kelvin:g}": (density, kelvin) for density, kelvin in chosen}
        write_states(folder, places, protons, tested)
        return folder

    return make
