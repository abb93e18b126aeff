"""`--print-config`: the composed config, with the comment of every key."""

from __future__ import annotations

import re

import pytest
from omegaconf import OmegaConf

from lightning_vfe.cli import main
from lightning_vfe.workflows.compose import compose_config
from lightning_vfe.workflows.overrides import parse
from lightning_vfe.workflows.plan import make_plan

COMMANDS = [
    ["fit"],
    ["fit", "experiment=potential_rs1p25_6000K"],
    ["fit", "experiment=flow_mle_rs1p25_6000K"],
    ["fit", "optimizer=adam", "base=uniform", "logger=wandb"],
    ["label", "calculator=vmc"],
    ["log-z"],
    ["report"],
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_value_has_its_comment_and_nothing_else_changes(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    verb, *settings = words
    assert main([*words, "--print-config"]) == 0
    printed = capsys.readouterr().out
    overrides = parse(settings)
    given = make_plan(verb, overrides).config if verb == "fit" else compose_config(overrides, root=verb)
    assert [line.partition("  # ")[0] for line in printed.splitlines()] == OmegaConf.to_yaml(given).splitlines()
    values = [line for line in printed.splitlines() if re.match(r" *[\w-]+: [^{]", line) and "_target_" not in line]
    assert values
    assert [line for line in values if "  # " not in line] == []


def test_comments_are_those_of_the_chosen_option(capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", "sampler=fixed", "system.protons=fixed", "--print-config"])
    printed = capsys.readouterr().out
    assert "num_proton_walkers: 8  # copies W of the protons" in printed
    assert re.search(r"^  proton_density:  # p\(x\)", printed, flags=re.MULTILINE)
