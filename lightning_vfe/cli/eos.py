"""The verb `eos`: an equation of state from tested runs over state points."""

from collections.abc import Sequence

import pandas as pd
from rich.console import Console
from rich.table import Table

from lightning_vfe.analysis.eos.hugoniot import GROUND_STATE_LIMIT, InitialState
from lightning_vfe.analysis.terms import TERMS, value_in_brackets
from lightning_vfe.cli.banner import print_rows
from lightning_vfe.workflows.eos import EquationOfState, eos, home_of
from lightning_vfe.workflows.paths import check_folder
from lightning_vfe.workflows.verbs import compose_verb

MEASURED = ("free_energy_per_atom", "energy_per_atom", "entropy_per_atom", "pressure_gpa")


def run(words: Sequence[str], is_dry_run: bool = False) -> int:
    """Fit, and print the tables; a dry run writes no file. Returns the exit code."""
    config = compose_verb("eos", tuple(words))
    start, home = InitialState.of(**config.hugoniot), home_of(config.runs, config.run_dir)
    check_folder("run_dir", home)
    found = eos(config.runs, start, None if is_dry_run else home, config.finite_size)
    print_rows("eos", home.name, [("runs", str(len(config.runs))), ("folder", str(home))])
    _print_states(found.table)
    _print_fit(found)
    _print_derived(found.table)
    _print_hugoniot(found, start)
    for remark in found.remarks:
        print(remark)
    for kind, file in found.files.items():
        print(f"{kind}: {file}")
    return 0


def _print_states(table: pd.DataFrame) -> None:
    shown = _table("measured", ("rs", "T, K", *(_heading(name) for name in MEASURED)))
    for (rs, kelvin), row in table.iterrows():
        shown.add_row(
            f"{rs:g}", f"{kelvin:g}", *(value_in_brackets(row[name], row[f"{name}_error"]) for name in MEASURED)
        )
    _show(shown)


def _print_fit(found: EquationOfState) -> None:
    """How well each state agrees with the derivatives of F, and with the surface through all others."""
    terms = found.surface.basis.terms
    title = (
        f"surface of {terms.num_terms} terms, {terms.density} powers of 1/rs and {terms.temperature} functions of T: "
        f"chi^2 = {found.fit.chi2:.1f} for {found.fit.dof} degrees of freedom"
    )
    shown = _table(title, ("rs", "T, K", "P against -dF/dV", "S against -dF/dT", "left out, p"))
    for (rs, kelvin), row in found.table.iterrows():
        sigmas = [_number(row[name], "+.1f") for name in ("pressure_sigmas", "entropy_sigmas")]
        shown.add_row(f"{rs:g}", f"{kelvin:g}", *sigmas, _number(row["left_out_probability"], ".2g"))
    _show(shown)
    print("differences in standard errors, from the measured F alone")
    print("p: probability that noise alone moves the state this far from the surface through the others")


def _print_derived(table: pd.DataFrame) -> None:
    names = {f"fit_{name}": _heading(name) for name in MEASURED[2:]}
    names |= {"fit_heat_capacity": "C_V, k_B/atom", "fit_sound_speed_km_per_s": "sound, km/s"}
    shown = _table("from the surface", ("rs", "T, K", *names.values()))
    for (rs, kelvin), row in table.iterrows():
        # an error that is not known would look like none
        pairs = [(row[name], row[f"{name}_error"]) for name in names]
        numbers = [value_in_brackets(value, error) if error == error else "-" for value, error in pairs]
        shown.add_row(f"{rs:g}", f"{kelvin:g}", *numbers)
    _show(shown)
    print("errors contain the truncation error of the polynomial; eos.csv also gives it alone")


def _print_hugoniot(found: EquationOfState, start: InitialState) -> None:
    place = f"E_0 = {start.energy:g} Ha/atom, V_0 = {start.volume:.2f} bohr^3/atom"
    if found.hugoniot.empty and found.measured_hugoniot.empty:
        print(f"the Hugoniot of {place} does not run through the states")
        return
    shown = _table(f"Hugoniot, {place}", ("from", "T, K", "rs", "V_0/V", "P, GPa", "ground state"))
    for source, table in (("surface", found.hugoniot), ("E, P", found.measured_hugoniot)):
        for _, row in table.iterrows():
            numbers = [value_in_brackets(row[n], row[f"{n}_error"]) for n in ("rs", "compression", "pressure_gpa")]
            limit = "yes" if row["ground_state_electrons"] else "NO"
            shown.add_row(source, f"{row['temperature_kelvin']:g}", *numbers, limit)
    _show(shown)
    print(f"ground state: NO above {GROUND_STATE_LIMIT:g} K, as the model has no excited electrons")


def _heading(name: str) -> str:
    return f"{TERMS[name].plain_symbol}, {TERMS[name].unit}"


def _number(value: float, form: str) -> str:
    return "-" if value != value else format(value, form)


def _table(title: str, headings: Sequence[str]) -> Table:
    shown = Table(title=title, title_justify="left", box=None)
    for heading in headings:
        shown.add_column(heading, justify="right")
    return shown


def _show(table: Table) -> None:
    Console(soft_wrap=True, highlight=False, markup=False).print(table)
