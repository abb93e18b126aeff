"""The verb `sample`: independent proton configurations of a trained run."""

from collections.abc import Sequence
from contextlib import closing

from rich.console import Console
from rich.table import Table

from lightning_vfe.analysis.terms import value_in_brackets, value_with_error
from lightning_vfe.cli.banner import Watch
from lightning_vfe.workflows.samples import Samples
from lightning_vfe.workflows.state_samples import StateSamples
from lightning_vfe.workflows.verbs import sample


def run(words: Sequence[str], is_dry_run: bool = False) -> int:
    """Sample, and print what there is; returns the exit code."""
    watch = Watch("sample", is_dry_run)
    with closing(watch):
        found = sample(*words, progress=watch.progress, begin=watch.begin)
    _print(found)
    return 0


def _gap(samples: StateSamples) -> str:
    """How far F of p(x) lies above the free energy of E_psi."""
    flow = samples.flow_gap
    if flow.gap is None:
        return f"gap of the flow: not given: {flow.note()}"
    gap = value_in_brackets(flow.gap.value, flow.gap.error)
    return f"gap of the flow: {gap} Ha/atom ({flow.note()})"


def _print(found: Samples) -> None:
    table = Table(title="samples of p(x); errors are one standard error", title_justify="left", box=None)
    for heading in ("rs, bohr", "T, K", "samples", "E, Ha/atom", "noise, kT", "effective"):
        table.add_column(heading, justify="right")
    for each in found.states:
        weights = each.weights
        place = f"{each.point.rs:g}", f"{each.point.temperature_kelvin:g}", str(len(each.energy))
        energy = value_with_error(*each.mean_energy_per_atom)
        table.add_row(*place, energy, f"{weights.noise**0.5:.2g}", f"{weights.effective_size:.1f}")
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(table)
    tau = found.autocorrelation_time
    console.print(f"spacing {found.spacing} sweeps, autocorrelation time {tau:.1f} sweeps")
    for each in found.states:
        console.print(_gap(each))
    console.print("effective: effective number of samples of exp(-E_psi/kT); noise: standard error of E_psi")
    for reason in found.reasons:
        console.print(f"note: {reason}")
    console.print(f"samples: {found.file}")
