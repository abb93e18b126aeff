"""The help texts, made from the config files themselves: fast, and never behind them."""

import re
import textwrap
from pathlib import Path

from lightning_vfe.cli.all_keys import all_keys
from lightning_vfe.resources import resource_folder

VERBS = {
    "fit": "train flow and wavefunction, or what the experiment names; resume a run with ckpt_path=last",
    "validate": "measure briefly with frozen networks; writes no files",
    "test": "freeze the networks, equilibrate again, and measure; writes a table, a summary and figures",
    "label": "compute energies and forces of proton configurations, and store them in a database",
    "log-z": "compute ln Z of a potential, on a path from the ideal gas",
    "sample": "draw independent proton configurations of a run, with energies and weights",
    "report": "compare runs of the same state points in a table, a figure and a page",
    "eos": "fit F(V, T) to tested runs at several state points: equation of state, Hugoniot",
}
TRAINER_VERBS = ("fit", "validate", "test")
"""Verbs of Lightning's Trainer; they share configs/config.yaml. The others have configs/VERB.yaml and a command."""

# where the default and the comment of the most used keys stand
MAIN_KEYS = (
    ("system/hydrogen.yaml", "system", ("num_atoms", "rs", "temperature_kelvin", "protons", "structure", "twists")),
    ("sampler/default.yaml", "sampler", ("num_proton_walkers", "num_electron_walkers", "num_groups")),
    ("trainer/default.yaml", "trainer", ("max_steps", "devices", "accelerator", "strategy")),
    ("config.yaml", "", ("seed", "dtype", "run_dir", "ckpt_path")),
)

MOST_USED = "most used keys [default]; --help-all lists all keys:"

EXAMPLES = {
    "fit": (
        "lightning-vfe fit",
        "lightning-vfe fit experiment=h14_6000K trainer.devices=2",
        "lightning-vfe fit ckpt_path=last trainer.max_steps=2000",
        "lightning-vfe fit --multirun base=uniform system.rs=1.2,1.4",
    ),
    "validate": ("lightning-vfe validate", "lightning-vfe validate run_dir=runs/default"),
    "test": (
        "lightning-vfe test",
        "lightning-vfe test run_dir=runs/default datamodule.test_steps=500",
        "lightning-vfe test target_error=0.0005 seed=7",
        "lightning-vfe test ckpt_path=runs/default/checkpoints/last.ckpt",
    ),
    "label": ("lightning-vfe label system.num_atoms=8",),
    "log-z": ("lightning-vfe log-z system.num_atoms=8",),
    "sample": ("lightning-vfe sample run_dir=runs/default sample.num_samples=200",),
    "report": ("lightning-vfe report runs/default runs/default-2", "lightning-vfe report runs=[runs/a,runs/b]"),
    "eos": ("lightning-vfe eos runs/default", "lightning-vfe eos runs/cold runs/hot hugoniot.nucleus=H"),
}

VERB_NOTES = {
    "fit": (
        "Writes the run folder runs/NAME, where NAME is the name of the experiment (runs/NAME-2, ... if this folder",
        "exists). With ckpt_path=last, or the path of a checkpoint, it resumes this run with its config;",
        "key=value then changes single settings.",
    ),
    "validate": (
        "Measures the last checkpoint of the latest run, or of the run in run_dir, or the checkpoint in ckpt_path,",
        "with the config of its run.",
    ),
    "test": (
        "Measures the last checkpoint of the latest run, or of the run in run_dir, or the checkpoint in ckpt_path,",
        "with the config of its run. Writes summary.json and figures/ into the run folder.",
    ),
    "label": ("Samples configurations of system.num_atoms atoms. Continues a database that exists already.",),
    "log-z": ("Stores ln Z with its error beside the potential. base=schnet of fit needs it.",),
    "sample": (
        "Samples p(x) of the last checkpoint of the run in run_dir. Writes samples/samples.extxyz, for ASE, and",
        "samples/samples.json into its folder.",
    ),
    "report": (
        "Reads what test and log-z wrote into the folders RUN; writes report.html, comparison.csv and comparison.png.",
    ),
    "eos": ("Reads what test wrote into the folders RUN; writes eos.csv, eos_surface.json, hugoniot.csv and figures.",),
}


def general_help() -> str:
    """Text of `lightning-vfe --help`."""
    lines = [
        "usage: lightning-vfe VERB [key=value ...]",
        "",
        "Variational free energy of dense hydrogen.",
        "",
        "verbs:",
    ]
    lines += _columns(VERBS.items())
    lines += _groups() + _experiments() + _main_keys()
    lines += [
        "",
        "examples:",
        *(f"  {EXAMPLES[verb][number]}" for verb, number in (("fit", 0), ("fit", 1), ("fit", 2))),
    ]
    lines += [f"  {EXAMPLES['test'][0]}", "", *_flags()]
    return "\n".join(lines)


def verb_help(verb: str, with_all_keys: bool = False) -> str:
    """Text of `lightning-vfe VERB --help`, or of `--help-all`."""
    root = resource_folder("configs") / f"{'config' if verb in TRAINER_VERBS else verb}.yaml"
    folders = "RUN ... " if "runs" in _single_keys(root) else ""
    lines = [f"usage: lightning-vfe {verb} {folders}[key=value ...]", "", f"{verb}: {VERBS[verb]}.", ""]
    lines += VERB_NOTES[verb]
    if with_all_keys:
        lines += _groups(root.stem)
        lines += ["", "all keys [default], sorted by config option; keys that follow another key are not listed:"]
        return "\n".join([*lines, *all_keys(verb)])
    if verb in TRAINER_VERBS:
        lines += _groups() + _experiments() + _main_keys()
    else:
        lines += _groups(verb) + _command_keys(verb)
    return "\n".join([*lines, "", "examples:", *(f"  {line}" for line in EXAMPLES[verb]), "", *_flags()])


def fitted_help(text: str, width: int) -> str:
    """A help text in lines of a terminal; the second column stays a column where there is room for it.

    Args:
        text: as `general_help` and `verb_help` return it.
        width: of the terminal in characters.
    """
    lines = []
    for line in re.sub(r"(?m)(?<=\S)\n(?=\S)", " ", text).splitlines():  # a paragraph is one line
        match = re.match(r"  \S.*?  +(?=\S)", line)
        column = len(match[0]) if match else 0
        indent = column if column <= width // 2 else 6
        lines += textwrap.wrap(line, width, subsequent_indent=" " * indent, break_on_hyphens=False) or [""]
    return "\n".join(lines)


def describe(file: Path) -> str:
    """The first comment of a config file, its one-line description."""
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and not line.startswith("# @package"):
            return line.lstrip("# ").rstrip()
    return ""


def key_comment(file: Path, key: str) -> tuple[str, str]:
    """Default and comment of a top-level key of a config file: `key: default  # comment`."""
    match = re.search(
        rf"^{re.escape(key)}:[ ]*(.*?)[ ]+#[ ]*(.*)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    if match is None:
        raise KeyError(f"{file} has no line '{key}: default  # comment'")
    return match[1], match[2]


def _groups(root: str = "config") -> list[str]:
    """Groups in the defaults list of a root config and of its tasks, read as text: Hydra takes long to import."""
    configs = resource_folder("configs")
    files = [configs / f"{root}.yaml", *(sorted((configs / "task").glob("*.yaml")) if root == "config" else ())]
    names = {
        name
        for file in files
        for name in re.findall(r"^  - /?(\w+)(?:@\S+)?: ", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    folders = [configs / name for name in sorted(names - {"experiment"})]
    rows = [(folder.name, ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))) for folder in folders]
    if not rows:
        return []
    return ["", "config groups, GROUP=OPTION:", *_columns(rows)]


def _experiments() -> list[str]:
    files = sorted((resource_folder("configs") / "experiment").glob("*.yaml"))
    return ["", "experiments, experiment=NAME:", *_columns((file.stem, describe(file)) for file in files)]


def _main_keys() -> list[str]:
    rows = []
    for name, group, keys in MAIN_KEYS:
        for key in keys:
            default, comment = key_comment(resource_folder("configs") / name, key)
            rows.append((f"{group}.{key}" if group else key, f"{comment} [{default}]"))
    return ["", MOST_USED, *_columns(rows)]


def _command_keys(verb: str) -> list[str]:
    """Single keys of a command: those of the system, of its root config, and of the groups' default options."""
    configs, rows = resource_folder("configs"), []
    root = configs / f"{verb}.yaml"
    groups = re.findall(r"^  - (\w+): (\w+)$", root.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for group, option in groups:
        file = configs / group / f"{option}.yaml"
        chosen = MAIN_KEYS[0][2][:3] if group == "system" else _single_keys(file)
        rows += [(f"{group}.{key}", *key_comment(file, key)) for key in chosen]
    rows += [(key, *key_comment(root, key)) for key in _single_keys(root)]
    shown = _columns((name, f"{comment} [{default}]") for name, default, comment in rows)
    return ["", MOST_USED, *shown]


def _single_keys(file: Path) -> list[str]:
    """Top-level keys of a config file that hold a value, not further keys."""
    keys = re.findall(r"^(\w+): +[^#\s]", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [key for key in keys if key != "_target_"]


def _flags() -> list[str]:
    rows = (
        ("--help, -h", "this text; after a verb, the help of this verb"),
        ("--help-all", "the same with all keys, their defaults and comments; try: fit --help-all | grep walkers"),
        ("--print-config, --cfg", "print all keys with their values and comments, and run nothing"),
        ("--dry-run", "print what the command would do, and write nothing; fit, validate and test time a few steps"),
        ("--require-converged", "test: exit code 3 if sampling or training has not converged"),
        ("--multirun, -m", "fit, validate and test: one run for each value of key=1,2,..."),
        ("--version", "print the version"),
    )
    return ["flags:", *_columns(rows)]


def _columns(rows: object) -> list[str]:
    pairs = [(str(name), str(text)) for name, text in rows]  # type: ignore[attr-defined]
    width = max(len(name) for name, _ in pairs)
    return [f"  {name:<{width}}  {text}" for name, text in pairs]
