"""The script of docs/cluster.md on a real SLURM cluster of one node: it requeues itself and resumes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from lightning_vfe.cli import main
from tests.helpers.slurm import cluster, is_installed, wait_for

PAGE = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text()
SCRIPT = next(block for block in re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL) if block.startswith("#!"))
SETTINGS = ["experiment=smoke", "logger=csv", "trainer.accelerator=cpu", "trainer.max_steps=60"]


def smaller(script: str) -> str:
    """The script for one process on the CPU."""
    script = re.sub(r"#SBATCH --(gpus|cpus)-per.*\n", "", script)
    script = re.sub(r"--(nodes|ntasks-per-node)=\d+", r"--\1=1", script)
    return re.sub(r"experiment=h54\S* trainer\S* trainer\S* trainer\S*", " ".join(SETTINGS), script)


@pytest.mark.skipif(not is_installed(), reason="needs the Debian packages slurm-wlm and munge, and root")
def test_the_script_requeues_itself_and_resumes_to_the_same_numbers(tmp_path: Path) -> None:
    """`scancel` sends the signal that SLURM sends before the time limit."""
    (tmp_path / "job.sh").write_text(smaller(SCRIPT))
    (tmp_path / "slurm").mkdir(mode=0o700)
    table = tmp_path / "runs" / "h54" / "metrics.csv"
    with cluster(tmp_path / "slurm") as environment:
        environment |= {
            "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        }

        def ask(*words: str) -> str:
            done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            return done.stdout

        def state(name: str) -> str:
            return re.search(rf"\b{name}=(\S+)", ask("scontrol", "show", "job", job))[1]

        wait_for(lambda: "idle" in ask("sinfo", "--noheader"))
        job = ask("sbatch", "--parsable", "job.sh").strip()
        wait_for(lambda: table.is_file() and len(table.read_text().splitlines()) > 2)
        ask("scancel", "--signal=USR1", f"{job}.0")
        wait_for(lambda: state("JobState") == "PENDING" and state("Restarts") == "1")
        ask("scontrol", "update", f"JobId={job}", "StartTime=now+15")  # else two minutes later
        wait_for(lambda: state("JobState") in ("COMPLETED", "FAILED"))
        assert state("JobState") == "COMPLETED"
    printed = (tmp_path / f"slurm-{job}.out").read_text()
    assert "SIGUSR1: ending this step, then saving" in printed
    assert "Exited with exit code 138" in printed
    assert main(["fit", *SETTINGS, f"run_dir={tmp_path / 'alone'}"]) == 0
    pd.testing.assert_frame_equal(pd.read_csv(table), pd.read_csv(tmp_path / "alone" / "metrics.csv"), check_exact=True)
