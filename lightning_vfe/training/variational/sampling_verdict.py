"""The verdict on the sampling: why averages are not to be trusted, and what is worth knowing."""

from __future__ import annotations

import math
from collections.abc import Mapping

from lightning_vfe.training.variational.diagnostics import (
    MAX_NOISE,
    MAX_NOISE_PER_FREEDOM,
    MAX_R_HAT,
    MAX_SHARE,
    MAX_UNREACHED,
    MIN_EFFECTIVE_SAMPLES,
    electron_drift_limit,
)


def state_reasons(
    diagnostics: Mapping[str, float], has_equilibrated: bool, folded_fraction: float, steps_key: str
) -> list[str]:
    """Why the averages at one state point are not to be trusted; empty if they are.

    Args:
        diagnostics: of its walkers and estimators.
        has_equilibrated: whether at most half of the steps had to be left out.
        folded_fraction: of the samples where the map folds and p(x) is therefore not normalised.
        steps_key: setting of the number of measured steps, for advice.
    """
    found = []
    if not has_equilibrated:
        found.append(
            "the chains have not equilibrated in the first half of the measured steps, or still drift; "
            f"raise datamodule.equilibration_steps and {steps_key}"
        )
    if math.isnan(diagnostics["r_hat"]):
        found.append(f"too few steps are measured for R-hat; raise {steps_key}, to at least 4")
    elif diagnostics["r_hat"] > MAX_R_HAT:
        found.append(
            f"R-hat = {diagnostics['r_hat']:.3f} is above {MAX_R_HAT}: the chains have not equilibrated; "
            f"raise datamodule.equilibration_steps and {steps_key}"
        )
    if not diagnostics["effective_sample_size"] >= MIN_EFFECTIVE_SAMPLES:
        found.append(
            f"only {diagnostics['effective_sample_size']:.0f} effective samples (at least {MIN_EFFECTIVE_SAMPLES:.0f} "
            f"are needed); raise {steps_key}"
        )
    elif diagnostics.get("largest_share", 0.0) > MAX_SHARE:
        found.append(
            f"one sample makes {100 * diagnostics['largest_share']:.0f} % of the variance of F: a rare x or r has a "
            "huge energy, and the errors are not to be trusted; lower optimizer.flow_max_norm and start again, or "
            f"raise {steps_key}"
        )
    if folded_fraction > 0.0:
        found.append(
            f"det dz/dx is negative for a fraction {folded_fraction:.2e} of the samples: the map "
            "folds, p(x) is not normalised and F and S are not reported; measure with "
            "sampler.proton_sampling=direct, or lower optimizer.flow_max_norm (with optimizer=adam "
            "flow_learning_rate) and start again"
        )
    return found


def common_reasons(diagnostics: Mapping[str, float]) -> list[str]:
    """Why no number of a measurement is to be trusted, from the diagnostics of all chains; empty if they are."""
    found = []
    if diagnostics.get("drifting_terms", 0.0) > 0.0:
        found.append(
            f"the walkers drift after {diagnostics['equilibration_steps']:.0f} sweeps of equilibration; "
            "raise datamodule.equilibration_steps"
        )
    unreached = diagnostics.get("unreached_fraction", 0.0)
    if unreached > MAX_UNREACHED:
        found.append(
            f"the flow could not be inverted for a fraction {unreached:.2g} of the base protons: F is that of the "
            "others; lower optimizer.flow_max_norm and start again, or measure with "
            "sampler.proton_sampling=delayed sampler.num_proton_steps=20"
        )
    if diagnostics.get("ceimc_noise_per_freedom", 0.0) > MAX_NOISE_PER_FREEDOM:
        found.append(
            f"the noise of the energy differences, (s/kT)^2 = {diagnostics['ceimc_noise']:.2g}, is too large for so "
            "few electrons: the penalty is not exact; raise sampler.ceimc_electron_walkers, or lower "
            "sampler.ceimc_proton_width"
        )
    if diagnostics["num_stranded"] > 0.0:
        found.append("chains stand where the density is zero or not finite; start from another system.structure")
    if abs(diagnostics["electron_drift"]) > electron_drift_limit(diagnostics):
        found.append(
            "the electrons have not settled around the moved protons "
            f"(drift of ln|psi|^2 = {diagnostics['electron_drift']:.3f}); "
            "raise sampler.num_electron_steps"
        )
    return found


def sampling_notes(diagnostics: Mapping[str, float], is_ceimc: bool, folded_fraction: float) -> list[str]:
    """What has been taken into account, and is worth knowing.

    Args:
        diagnostics: of all chains.
        is_ceimc: whether the protons are those of exp(-E/kT), in place of p(x).
        folded_fraction: of the samples where the map folds, if that does no harm.
    """
    found, unreached = list[str](), diagnostics.get("unreached_fraction", 0.0)
    if is_ceimc:
        found.append("the protons are those of exp(-E/kT) in place of p(x); their chains do not give F and S")
    if diagnostics.get("ceimc_noise", 0.0) > MAX_NOISE:
        found.append(
            f"the noise of the energy differences is large, (s/kT)^2 = {diagnostics['ceimc_noise']:.2g}: many "
            "moves are rejected for it; raise sampler.ceimc_electron_walkers, or lower sampler.ceimc_proton_width"
        )
    if 0.0 < unreached <= MAX_UNREACHED:
        found.append(
            f"the flow could not be inverted for a fraction {unreached:.1e} of the base protons; F contains "
            f"-kT ln(1 - {unreached:.1e}) / N for it, and its error as much again"
        )
    if folded_fraction > 0.0:
        found.append(
            f"the map folds for a fraction {folded_fraction:.1e} of the samples; one x is taken for each z, and F "
            "remains an upper bound"
        )
    return found
