"""The commands of docs/python.md compile an exported potential and a C++ program, which gives energies and forces."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lightning_vfe as lv
from lightning_vfe.physics.cell import PeriodicCell
from tests.helpers.potentials import random_protons

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "python.md").read_text().partition("### In C++")[2]
COMMANDS = re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)[0]
METADATA = {"rs_range": [1.2, 1.4], "temperature_kelvin": 6000.0, "label": {"calculator": "none"}}


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_program_in_cpp_gives_energies_and_forces(tmp_path: Path) -> None:
    """To 1e-6 Ha, at two densities and for protons in any image; about 40 s on one core, nearly all in the compiler."""
    torch.set_default_dtype(torch.float64)
    potential = lv.YukawaPotential(strength=1.0, screening_length=0.7, cutoff=4.0)
    lv.save_potential(potential, tmp_path / "yukawa.pt", METADATA)
    lv.export_potential(tmp_path / "yukawa.pt", tmp_path / "yukawa_forces.pt2", num_atoms=4, forces=True)
    cells = [PeriodicCell(4, rs) for rs in (1.2, 1.4)]
    samples = [random_protons(cell, 3) + cell.length for cell in cells]
    rows = [[cell.length, *z.flatten().tolist()] for cell, block in zip(cells, samples, strict=True) for z in block]
    (tmp_path / "configurations.txt").write_text("\n".join(" ".join(map(repr, row)) for row in rows))
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"),
    }
    done = subprocess.run(["bash", "-ec", COMMANDS], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = torch.tensor([[float(word) for word in line.split()] for line in done.stdout.splitlines()])
    expected = [potential.energy_and_forces(z, cell) for z, cell in zip(samples, cells, strict=True)]
    rows = torch.cat([torch.cat([energy[:, None], forces.flatten(1)], dim=1) for energy, forces in expected])
    assert (found - rows).abs().max() < 1e-6
    refused = subprocess.run(
        ["./energies", "aoti.pt2", "4"], cwd=tmp_path, input="3.0 1.0", capture_output=True, text=True
    )
    assert (refused.returncode, refused.stderr) == (2, "configuration 1 is not complete\n")
