"""The types of all keys: those of the arguments that the config's `_target_`s take, checked by pydantic.

A node with a `_target_` has the keys that the class takes, with the types of its annotations. Keys of no object stand
in `PLAIN_KEYS`. A key that follows another one (`${...}`) passes its type on: the message names the key that is set.
"""

from __future__ import annotations

import inspect
import json
import pydoc
import typing
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import SchemaError

from lightning_vfe.errors import SettingError, nearest, one_line
from lightning_vfe.workflows.imports import import_parts
from lightning_vfe.workflows.keys import locate, references, walk

LARGEST_SEED = 2**32 - 1
"""NumPy takes no larger one."""
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
OptionalPath = str | None
PLAIN_KEYS: dict[str, Any] = {
    "schema": int,
    "version": str | None,
    "name": str,
    "task": str,
    "seed": Seed,
    "dtype": Literal["float64", "float32"],
    "progress_seconds": float,
    "max_chunk_elements": Annotated[int, Field(ge=1)] | None,
    "imports": list[str],
    "run_dir": OptionalPath,
    "ckpt_path": OptionalPath,
    "init_from": OptionalPath,
    "wavefunction_ckpt": OptionalPath,
    "flow_ckpt": OptionalPath,
    "log_z_path": OptionalPath,
    "system.num_atoms": int,
    "system.nucleus": Any,
    "system.structure": str,
    "system.protons": str,
    "sampler.num_proton_walkers": int,
    "sampler.num_electron_walkers": int,
    "sampler.num_groups": int,
    "sampler.chain_precision": str | None,
    "num_samples": int,
    "device": str,
    "runs": list[str | int | float],
    "labels": list[str | int | float],
    "finite_size": bool,
    "hugoniot.nucleus": str,
    "hugoniot.density_g_per_cm3": float | None,
    "hugoniot.energy_per_atom": float | None,
    "hugoniot.pressure_gpa": float,
    "label.database": OptionalPath,
    "label.num_atoms": list[int],
    "label.rs": list,
    "label.rs_range": list | None,
    "label.temperature_range": list | None,
    "label.num_states": int,
    "label.num_configurations": int,
    "label.configurations_path": OptionalPath,
    "label.rounds": int,
    "label.num_processes": int,
    "label.num_force_checks": int,
    "label.retry_failed": bool,
    "calculator.ckpt_path": OptionalPath,
    "potential.path": str,
}
"""Types of the keys that are no argument of an object."""
STATE_KEYS = ("rs", "temperature_kelvin", "states", "twists", "twist_symmetry", "twist_shift")
"""Keys below `system` whose types are those of `Strata.of`, and which some verbs read without an object of it."""
COMPLETED_BY_CODE = ("module", "datamodule", "calculator")
"""Nodes that get some of their arguments when they are built."""
HYDRA_KEYS = ("_target_", "_partial_", "_convert_", "_recursive_", "_args_")
WORDS = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "a word",
    "bool_type": "true or false",
    "list_type": "a list in brackets",
    "tuple_type": "a list in brackets",
    "sequence_type": "a list in brackets",
    "dict_type": "a group of keys",
    "none_required": "null",
    "needs_python_object": "an object, that is a group of keys with a _target_",
}


def check_types(config: DictConfig) -> None:
    """Compare all values of a composed config with the types of the arguments that they become.

    The modules that the config imports come first, so that own classes are known.

    Raises:
        SettingError: the first key whose value has another type, that its class does not take, or that nothing reads;
            or a module that cannot be imported.
    """
    content: Any = OmegaConf.to_container(config, resolve=True)
    _check_used(OmegaConf.to_container(config, resolve=False), content)
    _check("imports", content.get("imports", []), PLAIN_KEYS["imports"])
    import_parts(config)
    for key, kind in PLAIN_KEYS.items():
        value, is_there = _select(content, key)
        if is_there:
            _check(locate(config, key), value, kind)
    for node, values in _nodes(content):
        if not isinstance(partial := values.get("_partial_", False), bool):
            raise SettingError(locate(config, "_partial_", node), partial, "must be true or false")
        try:
            types, required, takes_all = _arguments(values["_target_"])
        except (ImportError, pydoc.ErrorDuringImport) as error:
            reason = f"cannot be imported ({one_line(error)})"
            remedy = "imports=[...] names modules of your own"
            raise SettingError(locate(config, "_target_", node), values["_target_"], reason, remedy) from error
        missing = [name for name in required if name not in values]
        if missing and not values.get("_partial_") and node not in COMPLETED_BY_CODE:
            home = locate(config, "_target_", node).removesuffix("_target_")
            raise SettingError(home + missing[0], None, f"is needed by {values['_target_']}", "give it a value")
        for name, value in values.items():
            if name in HYDRA_KEYS or (key := locate(config, name, node)) in PLAIN_KEYS:
                continue
            if types is not None and name not in types and not takes_all:
                close = nearest(name, types).removeprefix("; ") or "leave it out"
                raise SettingError(key, value, f"is no argument of {values['_target_']}", close)
            if types is not None and not any(True for _ in _nodes(value)):
                _check(key, value, types.get(name, Any))


def _check_used(raw: Any, content: Any) -> None:
    """Refuse a key that no object takes, no other key follows, and no code reads."""
    objects = [node for node, _ in _nodes(content)]
    readers = (*PLAIN_KEYS, *(f"system.{key}" for key in STATE_KEYS), *references(raw), *objects)
    leaves = [(key, value) for key, value in walk(raw) if not (isinstance(value, dict) and value)]
    for key, value in leaves:
        if not any(key == reader or key.startswith(f"{reader}.") for reader in readers):
            close = nearest(key, [name for name, _ in leaves if name != key]).removeprefix("; ")
            raise SettingError(key, value, "is read by nothing", close or "leave it out")


def _select(content: Any, key: str) -> tuple[Any, bool]:
    for part in key.split("."):
        if not isinstance(content, dict) or part not in content:
            return None, False
        content = content[part]
    return content, True


def _nodes(content: Any, prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """All nodes with a `_target_`, with their keys."""
    if isinstance(content, dict) and isinstance(content.get("_target_"), str):
        yield prefix, content
    children = content.items() if isinstance(content, dict) else enumerate(content if isinstance(content, list) else ())
    for name, child in children:
        yield from _nodes(child, f"{prefix}.{name}" if prefix else str(name))


@cache
def _arguments(target: str) -> tuple[dict[str, Any] | None, tuple[str, ...], bool]:
    """Types of the arguments that a class or function takes, those without a default, and whether it takes others too.

    The types are None where nothing is known.

    Raises:
        ImportError: there is no such class or function.
        pydoc.ErrorDuringImport: its module fails while it is imported.
    """
    called = pydoc.locate(target)
    if called is None:
        raise ImportError(f"there is no {target}")
    function = called.__init__ if inspect.isclass(called) else called
    try:
        parameters = list(inspect.signature(called).parameters.values())  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None, (), True  # a function of C
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError):
        hints = {}  # annotations that only type checkers can read
    takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    named = [p for p in parameters if p.kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)]
    required = tuple(p.name for p in named if p.default is inspect.Parameter.empty)
    return {p.name: hints.get(p.name, Any) for p in named}, required, takes_all


def default_of(target: str, name: str) -> Any:
    """The plain default of an argument of a class or function; `inspect.Parameter.empty` where there is none."""
    called = pydoc.locate(target)
    try:
        parameters = inspect.signature(called).parameters  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return inspect.Parameter.empty
    default = parameters[name].default if name in parameters else inspect.Parameter.empty
    is_plain = default is None or isinstance(default, bool | int | float | str)
    return default if is_plain else inspect.Parameter.empty


def _check(key: str, value: Any, kind: Any) -> None:
    adapter = _adapter(kind)
    if adapter is None:
        return
    try:
        # JSON in strict mode has the types of YAML: a list may become a tuple, but a word never a number
        adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise SettingError(key, value, f"must be {_wanted(error.errors())}") from error


@cache
def _adapter(kind: Any) -> TypeAdapter[Any] | None:
    if kind is Any:
        return None
    try:
        return TypeAdapter(kind, config=ConfigDict(arbitrary_types_allowed=True))
    except (PydanticUserError, SchemaError, TypeError):
        return None  # a Protocol, whose objects only the constructor can judge


def _wanted(errors: Iterable[Any]) -> str:
    return " or ".join(dict.fromkeys(_word(error) for error in errors))


def _word(error: Any) -> str:
    limits = error.get("ctx", {})
    if "ge" in limits:
        return f"at least {limits['ge']}"
    if "le" in limits:
        return f"at most {limits['le']}"
    return WORDS.get(error["type"]) or str(error["msg"]).removeprefix("Input should be ").replace("'", "")
