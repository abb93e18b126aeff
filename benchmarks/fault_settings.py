"""Values that no run can have, for every key of the configs, for `faults.py`."""

from __future__ import annotations

import shutil
from typing import Any

from fault_commands import FIT, LABEL, LOG_Z, run

VALUES = {
    "a word": ("nonsense",),
    "a list or a group": ("[1,x]", "{a: 1}", "[]"),
    "a negative number": ("-1", "-0.5"),
    "zero": ("0",),
    "nan or inf": (".nan", ".inf", "nan", "-inf"),
    "a huge number": ("1e30", "1000000000000", "1e308"),
    "null": ("null",),
    "the key misspelled": (),
}
OWN = ("run_dir", "ckpt_path", "schema", "version")
"""Keys that the campaign sets itself, or that nobody may set."""
SECONDS = 8
"""Of processor time: a command that still works then has taken the value, as one with more steps does."""
COMMANDS = {
    "config": (*FIT[:4], "trainer.max_steps=2"),
    "label": LABEL,
    "log-z": LOG_Z,
}


def wrong_settings(campaign: Any, count: int) -> None:
    """Set so many keys of the configs, drawn at random, to a value of a random kind each."""
    from lightning_vfe.workflows.compose import compose_config
    from lightning_vfe.workflows.overrides import parse

    tasks = []
    for root, words in COMMANDS.items():
        settings = [word for word in words[1:] if not word.startswith(("run_dir", "ckpt_path"))]
        config = compose_config(parse(settings), root=root)
        tasks += [(kind, words[0], settings, key) for key in _keys(config) for kind in VALUES]
    campaign.rng.shuffle(tasks)
    rows = {kind: campaign.row(f"a setting is {kind}") for kind in VALUES}
    for kind, verb, settings, key in tasks[:count]:
        word = f"{key}x=1" if not VALUES[kind] else f"{key}={campaign.rng.choice(VALUES[kind])}"
        home = campaign.folder / "setting"
        shutil.copytree(campaign.made / "log-z", home)
        outcome = run((verb, *settings, word, "run_dir=new"), home, cpu_seconds=SECONDS)
        is_right = outcome.is_clean or (outcome.code is None and "Traceback" not in outcome.err)
        rows[kind].add(outcome, "" if is_right else f"{verb} {word}: {outcome}")
        shutil.rmtree(home)
    for row in rows.values():
        if row.tries:
            campaign.finish(row)


def _keys(config: Any) -> list[str]:
    """Dotted keys that hold a value of their own, and not one that follows another key."""
    from omegaconf import OmegaConf

    from lightning_vfe.workflows.keys import followed, walk

    nodes = walk(OmegaConf.to_container(config, resolve=False))
    leaves = [(key, value) for key, value in nodes if not isinstance(value, dict)]
    return [key for key, value in leaves if followed(value) is None and key not in OWN and "_target_" not in key]
