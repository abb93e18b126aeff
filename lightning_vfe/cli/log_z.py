"""The verb `log-z`: ln Z of a stored potential, its windows, and classical protons in the potential."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import closing

from rich.console import Console
from rich.table import Table

from lightning_vfe.analysis.terms import TERMS, value_with_error
from lightning_vfe.cli.banner import Watch
from lightning_vfe.cli.exit_codes import FAILED, STOPPED
from lightning_vfe.physics.statistics import Estimate
from lightning_vfe.signals import signal_of
from lightning_vfe.workflows.log_z import LogZRun
from lightning_vfe.workflows.log_z_states import LogZStates
from lightning_vfe.workflows.verbs import compute_log_z


def run(words: Sequence[str], is_dry_run: bool = False) -> int:
    """Integrate and print; returns 0, or 1 where the result is not to be trusted."""
    watch = Watch("log-z", is_dry_run)
    try:
        with closing(watch):
            found = compute_log_z(*words, progress=watch.progress, begin=watch.begin)
    except KeyboardInterrupt as error:
        print("interrupted; the same command resumes with the samples in its run folder", file=sys.stderr)
        return STOPPED + signal_of(error)
    if isinstance(found, LogZStates):
        return _print_states(found)
    _print_result(found)
    if found.terms:
        _print_terms(found.terms)
    for file in found.figures:
        print(f"figure: {file}")
    return 0 if found.windows.converged else FAILED


def _print_states(found: LogZStates) -> int:
    """ln Z and F of each state, and the verdict; returns the exit code."""
    table = Table(title="one MBAR problem for all states", title_justify="left", box=None)
    names = [name for name in ("free_energy_per_atom", "energy_per_atom", "pressure_gpa") if name in found.terms[0]]
    headings = ["rs", "T/K", "ln Z", *("F per atom/Ha", "E per atom/Ha", "P/GPa")[: len(names)]]
    for name in headings:
        table.add_column(name, justify="right")
    for number, (point, entry) in enumerate(zip(found.points, found.entries, strict=True)):
        own = [(entry.log_z, entry.log_z_error)]
        own += [(found.terms[number][name].value, found.terms[number][name].error) for name in names]
        state = (f"{point.rs:g}", f"{point.temperature_kelvin:g}")
        table.add_row(*state, *(value_with_error(value, error) for value, error in own))
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(table)
    overlap = min(window.overlap_with_next or 1.0 for window in found.joint.windows)
    console.print(f"{len(found.joint.windows)} windows, least overlap of neighbours {overlap:.3f}")
    if found.added:
        places = "; ".join(f"rs = {entry.rs:g}, T = {entry.temperature_kelvin:g} K" for entry in found.added)
        console.print(f"states added where neighbours overlapped too little: {places}")
    if not found.joint.converged:
        console.print(f"NOT CONVERGED: {'; '.join(found.joint.reasons)}")
    console.print(f"stored in {found.file}, with the covariance of the states")
    for file in found.figures:
        console.print(f"figure: {file}")
    return 0 if found.joint.converged else FAILED


def _print_result(found: LogZRun) -> None:
    """The windows, ln Z, and F per atom."""
    table = Table(title="windows: 0 ideal gas, 1 Yukawa, 2 the potential", title_justify="left", box=None)
    for name in ("point", "ln Z", "samples", "g", "R-hat", "accepted", "width/bohr", "overlap", "swaps"):
        table.add_column(name, justify="right")
    for w in found.windows.windows:
        last = ("", "") if w.overlap_with_next is None else (f"{w.overlap_with_next:.3f}", f"{w.swaps_with_next:.2f}")
        numbers = (f"{w.num_samples}", f"{w.inefficiency:.1f}", f"{w.r_hat:.3f}", f"{w.acceptance:.2f}")
        table.add_row(f"{w.point:.4f}", f"{w.log_z:.3f}", *numbers, f"{w.width:.3f}", *last)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(table)
    count, value, error, kT = found.entry.num_atoms, found.entry.log_z, found.entry.log_z_error, found.kT
    console.print(f"ln Z                {value:.4f} +- {error:.4f}")
    console.print(f"-ln Z / N           {-value / count:.5f} +- {error / count:.5f}")
    console.print(f"-kT ln Z / N        {-kT * value / count:.6f} +- {kT * error / count:.6f} Ha per atom")
    if not found.entry.converged:
        console.print(f"NOT CONVERGED: {'; '.join(found.entry.reasons)}")
    console.print(f"stored in {found.file}")


def _print_terms(terms: Mapping[str, Estimate]) -> None:
    """F, E, S, P of the potential alone."""
    table = Table(title="classical protons in the potential, per atom", title_justify="left", box=None)
    for heading in ("quantity", "value", "unit"):
        table.add_column(heading, justify="right" if heading == "value" else "left")
    for name, term in terms.items():
        table.add_row(TERMS[name].plain_title, value_with_error(term.value, term.error), TERMS[name].unit)
    Console(highlight=False, markup=False).print(table)
