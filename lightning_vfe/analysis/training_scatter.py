"""How much trainings of one state differ: runs that have all settings in common but the seed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import OmegaConf
from scipy.stats import chi2

from lightning_vfe.analysis.folder import RunFolder

TERMS = ("free_energy_per_atom", "energy_per_atom", "entropy_per_atom", "pressure_gpa")
OF_THE_TRAINING = (
    "task", "dtype", "system", "base", "flow", "wavefunction", "sampler", "optimizer", "module", "particles", "strata",
    "reference", "state", "init_from", "wavefunction_ckpt", "flow_ckpt",
)  # fmt: skip
"""Settings that two trainings of one state have in common; references such as `${seed}` stay as they are."""
SIGNIFICANT = 0.01
"""Probability below which trainings are said to differ."""


def trainings_of_one_state(runs: Mapping[str, RunFolder]) -> list[dict[str, RunFolder]]:
    """Groups of at least two runs that differ by the seed of their training alone, and took as many steps.

    Of several measurements of one training the first one counts. Runs without a config are left out.

    Args:
        runs: by their names.
    """
    groups: dict[str, dict[int, str]] = {}
    for label, run in runs.items():
        file = run.folder / "config.yaml"
        if not file.is_file():
            continue
        run.config  # noqa: B018  (refuses a damaged file)
        content: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
        key = {name: content.get(name) for name in OF_THE_TRAINING} | {"step": run.summary.get("step")}
        seed = run.summary.get("measurement", {}).get("training_seed", content.get("seed"))
        groups.setdefault(json.dumps(key, sort_keys=True, default=str), {}).setdefault(seed, label)
    return [{label: runs[label] for label in group.values()} for group in groups.values() if len(group) > 1]


def training_scatter(runs: Mapping[str, RunFolder]) -> pd.DataFrame:
    r"""Spread between trainings beside the statistical errors of each.

    With n trainings of results x_i and statistical errors s_i,

        standard_deviation^2 = sum_i (x_i - mean)^2 / (n - 1),    statistical_error^2 = sum_i s_i^2 / n,
        chi^2 = sum_i (x_i - w)^2 / s_i^2,   w = sum_i x_i / s_i^2 / sum_i 1 / s_i^2,

    where chi^2 has n - 1 degrees of freedom if the trainings do not differ. The standard deviation holds the
    statistical errors, so that the trainings alone differ by training_scatter^2 = standard_deviation^2 -
    statistical_error^2, or 0. The error of ln Z of the base is the same for all and is no part of the spread. It enters
    error_of_one, the error of the result of a single training: the root of the sum of the squares of
    statistical_error, log_z_error and training_scatter. The error of the mean contains all three, too:
    mean_error^2 = (statistical_error^2 + training_scatter^2) / n + log_z_error^2.

    Args:
        runs: by their names.

    Returns:
        A row for each group of trainings, state and term, whose levels are the index; empty where there is no group.
    """
    rows, index = [], []
    for group in trainings_of_one_state(runs):
        label = ", ".join(group)
        for number in range(max(1, len(next(iter(group.values())).states))):
            state = next(iter(group.values())).of_state(number).states[:1]
            place = (state[0].rs, state[0].temperature_kelvin) if state else (math.nan, math.nan)
            for term in TERMS:
                found = [_result(run.of_state(state[0] if state else 0), term) for run in group.values()]
                values, errors, of_base = np.array(found).T
                if np.isfinite(values).all() and (errors > 0).all():
                    rows.append(_row(values, errors, float(of_base.max())))
                    index.append((label, *place, term))
    names = ["trainings", "rs", "temperature_kelvin", "term"]
    return pd.DataFrame(rows, index=pd.MultiIndex.from_tuples(index, names=names)) if rows else pd.DataFrame()


def _result(run: RunFolder, term: str) -> tuple[float, float, float]:
    """Value, error without that of ln Z, and error of ln Z; a summary without a budget has the whole error."""
    value, error = run.result(term)
    budget = (run.summary.get("error_budget") or {}).get(term) or {}
    if None in budget.values() or "statistical" not in budget:
        return value, error, 0.0
    own = math.hypot(budget["statistical"], budget.get("unreached_fraction", 0.0))
    return value, own, budget.get("log_z", 0.0)


def _row(values: np.ndarray, errors: np.ndarray, of_base: float) -> dict[str, float]:
    weights = errors**-2.0
    square = float(weights @ (values - weights @ values / weights.sum()) ** 2)
    deviation, statistical = float(values.std(ddof=1)), math.sqrt(float((errors**2).mean()))
    scatter = math.sqrt(max(0.0, deviation**2 - statistical**2))
    return {
        "num_trainings": len(values),
        "mean": float(values.mean()),
        "mean_error": math.hypot(max(deviation, statistical) / math.sqrt(len(values)), of_base),
        "standard_deviation": deviation,
        "statistical_error": statistical,
        "log_z_error": of_base,
        "training_scatter": scatter,
        "error_of_one": math.hypot(statistical, of_base, scatter),
        "chi2": square,
        "p_value": float(chi2.sf(square, len(values) - 1)),
    }
