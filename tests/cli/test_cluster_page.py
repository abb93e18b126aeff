"""The commands of docs/cluster.md compose."""

import re
import shlex
from pathlib import Path

import pytest

from lightning_vfe.cli.help import TRAINER_VERBS
from lightning_vfe.cli.sweep import split_words
from lightning_vfe.workflows.compose import compose_config
from lightning_vfe.workflows.overrides import parse

PAGE = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text()
BLOCKS = "\n".join(re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)).replace("\\\n", " ")
COMMANDS = [line for line in BLOCKS.splitlines() if re.search(r"lightning[-_]vfe +(fit|test)", line)]


def test_the_page_has_commands() -> None:
    assert len(COMMANDS) == 6


@pytest.mark.parametrize("line", COMMANDS)
def test_command_composes(line: str) -> None:
    words = shlex.split(line)
    verb = next(number for number, word in enumerate(words) if word in TRAINER_VERBS)
    settings = words[verb + 1 :]
    jobs = split_words(settings[1:]).jobs if settings[0] == "--multirun" else [settings]
    assert len(jobs) == (4 if settings[0] == "--multirun" else 1)
    for job in jobs:
        config = compose_config(parse(job))
        assert config.sampler.num_groups % (config.trainer.devices * config.trainer.num_nodes) == 0
