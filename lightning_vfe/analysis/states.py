"""State points of a run: their names in columns and labels, and how a config lists them. Imports no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lightning_vfe.errors import SettingError

GROUND_STATES = ("fixed", "none")
"""Values of `protons` in the settings of a system without temperature: protons that stay, or none (jellium)."""
SEPARATOR = "@"
"""Stands between the name of a quantity and the suffix of a state: `free_energy_per_atom@rs1.9_T6000`."""
_SUFFIX = re.compile(r"rs([0-9.eE+-]+)(?:_T([0-9.eE+-]+))?")


@dataclass(frozen=True, order=True)
class State:
    """One density and one temperature.

    Attributes:
        rs: density parameter in bohr.
        temperature_kelvin: in K; 0 for fixed protons.
    """

    rs: float
    temperature_kelvin: float = 0.0

    @property
    def suffix(self) -> str:
        """Its name in a column."""
        return state_suffix(self.rs, self.temperature_kelvin)

    @property
    def label(self) -> str:
        """Its name in a sentence or a table."""
        return f"rs = {self.rs:g}" + (f", T = {self.temperature_kelvin:g} K" if self.temperature_kelvin else "")


def state_suffix(rs: float, temperature_kelvin: float | None) -> str:
    """Name of a state in a column, `rs1.9_T6000`; `rs1.9` for fixed protons.

    Args:
        rs: density parameter in bohr.
        temperature_kelvin: in K; None or 0 for fixed protons.
    """
    return f"rs{rs:g}_T{temperature_kelvin:g}" if temperature_kelvin else f"rs{rs:g}"


def parse_suffix(suffix: str) -> State:
    """The state of a name that `state_suffix` made; six digits of each number are left.

    Raises:
        ValueError: it is no such name.
    """
    found = _SUFFIX.fullmatch(suffix)
    try:
        if found is not None:
            return State(float(found[1]), float(found[2] or 0.0))
    except ValueError:
        pass  # signs and dots alone
    raise ValueError(f"'{suffix}' names no state; such a name is rs1.9_T6000, or rs1.9 for fixed protons")


def split_column(column: str) -> tuple[str, State | None]:
    """Quantity and state of a column; the state is None for a column without a suffix.

    Raises:
        ValueError: the suffix names no state.
    """
    name, separator, suffix = column.partition(SEPARATOR)
    return name, (parse_suffix(suffix) if separator else None)


def states_of(system: Mapping[str, Any]) -> tuple[State, ...]:
    """The states that the settings of a system list; none where they have no rs.

    `states` holds pairs [rs, temperature_kelvin]. Without it, rs and temperature_kelvin are numbers or lists, and every
    pair of them is a state. Fixed protons have no temperature.

    Raises:
        ValueError: a setting is no number and no list of numbers, or two states have one name.
    """
    is_fixed = system.get("protons") in GROUND_STATES
    pairs: list[tuple[float, float]]
    if system.get("states") is not None:
        pairs = [_pair(entry, system["states"]) for entry in _entries(system["states"])]
    elif system.get("rs") is None:
        return ()
    else:
        temperatures = [0.0] if is_fixed else _numbers(system, "temperature_kelvin")
        pairs = [(rs, temperature) for rs in _numbers(system, "rs") for temperature in temperatures]
    if not is_fixed:
        return check_distinct(State(*pair) for pair in pairs)
    return check_distinct(dict.fromkeys(State(rs) for rs, _ in pairs))


def check_distinct(states: Iterable[State]) -> tuple[State, ...]:
    """The states, each with a name of its own.

    Raises:
        ValueError: two states have one name.
    """
    found: dict[str, State] = {}
    for state in states:
        other = found.setdefault(state.suffix, state)
        if other is not state:
            why = "stands twice" if other == state else "stands for two states that differ beyond the sixth digit"
            raise ValueError(f"system.states: {state.label} {why}; give each state once")
    return tuple(found.values())


def is_hydrogen(system: Mapping[str, Any]) -> bool:
    """Whether the nuclei are protons; H or a mass within one electron mass of theirs (Xie et al. 2023 took 1836)."""
    nucleus = system.get("nucleus", "H")
    return nucleus == "H" or (_is_number(nucleus) and abs(nucleus - 1836.15) < 1.0)


def _entries(states: Any) -> list[Any]:
    if not isinstance(states, (list, tuple)) or not states:
        raise SettingError("system.states", states, "must be a list of pairs, such as [[1.2,4000],[1.3,6000]]")
    return list(states)


def _pair(entry: Any, states: Any) -> tuple[float, float]:
    numbers = entry if isinstance(entry, (list, tuple)) else ()
    if len(numbers) != 2 or not all(_is_number(number) for number in numbers):
        raise SettingError("system.states", states, "must be a list of pairs, such as [[1.2,4000],[1.3,6000]]")
    return float(numbers[0]), float(numbers[1])


def _numbers(system: Mapping[str, Any], key: str) -> list[float]:
    """A setting that may be one number or a list of them; a missing temperature counts as 0."""
    value = system.get(key)
    if value is None:
        return [0.0]
    numbers = list(value) if isinstance(value, (list, tuple)) else [value]
    if not numbers or not all(_is_number(number) for number in numbers):
        raise SettingError(f"system.{key}", value, "must be a number or a list of numbers")
    return [float(number) for number in numbers]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
