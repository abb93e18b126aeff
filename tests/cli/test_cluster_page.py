"""The commands of docs/cluster.md and docs/sweeps.md compose, and the SLURM script requeues what was stopped."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from lightning_vfe.cli.help import TRAINER_VERBS
from lightning_vfe.cli.sweep import split_words
from lightning_vfe.workflows.compose import compose_config
from lightning_vfe.workflows.overrides import parse

DOCS = Path(__file__).parents[2] / "docs"
PAGES = "\n".join((DOCS / name).read_text() for name in ("cluster.md", "sweeps.md"))
FOUND = re.findall(r"```bash\n(.*?)```", PAGES, flags=re.DOTALL)
BLOCKS = "\n".join(FOUND).replace("\\\n", " ")
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


@pytest.mark.parametrize(("code", "requeued"), [(138, "requeue 17\n"), (0, ""), (1, "")])
def test_the_slurm_script_requeues_after_the_signal_alone(code: int, requeued: str, tmp_path: Path) -> None:
    """With stand-ins for `srun`, which ends with the exit code of a run, and for `scontrol`."""
    script = next(block for block in FOUND if block.startswith("#!/bin/bash"))
    assert re.search(r"#SBATCH --signal=USR1@\d+", script), "138 is the exit code after SIGUSR1"
    for name, body in {"srun": f"exit {code}", "scontrol": 'echo "$@" >> calls'}.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "calls").touch()
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "17"}
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment)
    assert done.returncode == code
    assert (tmp_path / "calls").read_text() == requeued
