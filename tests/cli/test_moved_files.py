"""Input files of a run that have moved or changed: what they hold counts, not where they lie."""

import shutil
from pathlib import Path

import pytest
import torch

from lightning_vfe.cli import main
from lightning_vfe.resources import resource_folder

TINY = ["trainer.accelerator=cpu", "logger=csv", "trainer.max_steps=2", "datamodule.equilibration_steps=1"]
TINY += ["datamodule.test_steps=4", "wavefunction.num_layers=1", "wavefunction.single_width=4"]
TINY += ["wavefunction.pair_width=4", "sampler.num_electron_walkers=2", "sampler.num_electron_steps=2"]
EDGE = 2.149499410163176  # of N = 2 at rs = 2, in angstrom


def write_structure(file: Path, x: float = 1.1) -> None:
    file.parent.mkdir(exist_ok=True)
    box = f'Lattice="{EDGE} 0 0 0 {EDGE} 0 0 0 {EDGE}" Properties=species:S:1:pos:R:3 pbc="T T T"'
    file.write_text(f"2\n{box}\nH 0.3 0.2 0.1\nH {x} 0.9 0.7\n")


def protons(file: Path) -> torch.Tensor:
    return torch.load(file)["walkers"]["fields"]["protons"]


def line_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(words) == 2
    return capsys.readouterr().err


def test_fixed_protons_stay_where_the_checkpoint_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_structure(Path("a/h.xyz"))
    words = ["experiment=n2_mol_rs2", *TINY, "system.structure=a/h.xyz", "run_dir=run"]
    assert main(["fit", *words]) == 0
    checkpoint = Path("run/checkpoints/last.ckpt")
    began = protons(checkpoint)
    Path("b").mkdir()
    Path("a/h.xyz").rename("b/h.xyz")
    test = ["test", "run_dir=run"]
    assert main(test) == 0, "the file is not needed any more"
    assert main([*test, "system.structure=b/h.xyz"]) == 0, "the same file in another place"
    write_structure(Path("b/other.xyz"), x=1.3)
    line = line_of([*test, "system.structure=b/other.xyz"], capsys)
    assert f"system.structure = {tmp_path}/b/other.xyz holds other positions than those of the checkpoint" in line
    write_structure(Path("a/h.xyz"), x=1.3)
    assert main(["fit", "run_dir=run", "ckpt_path=last", "trainer.max_steps=3"]) == 0
    assert "a/h.xyz has changed; the protons are those of the checkpoint" in capsys.readouterr().out
    torch.testing.assert_close(protons(checkpoint), began, rtol=0, atol=0)


def test_walkers_that_continue_have_no_new_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "experiment=smoke", "trainer.max_steps=1", "run_dir=run"]) == 0
    line = line_of(["test", "run_dir=run", "system.structure=mixed"], capsys)
    assert (
        "system.structure = mixed has no effect, since the walkers of the checkpoint continue, which began at" in line
    )
    assert "start a new run with fit init_from=RUN trainer.max_steps=1" in line
    assert main(["validate", "run_dir=run", "system.structure=random"]) == 0, "the one that it had"


def test_a_potential_is_known_by_its_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here the parameters in the checkpoint are changed instead of those in the file."""
    monkeypatch.chdir(tmp_path)
    Path("here").mkdir()
    for ending in ("pt", "log_z.json"):
        shutil.copy(resource_folder("data") / "potentials" / f"h_rs1p25_6000K.{ending}", f"here/my.{ending}")
    small = ["flow.num_blocks=1", "flow.num_layers=1", "flow.num_steps=1", "sampler.num_proton_walkers=16"]
    assert main(["fit", *TINY, *small, "trainer.max_steps=1", "base.potential_path=here/my.pt", "run_dir=run"]) == 0
    assert f"potential_path: {tmp_path}/here/my.pt" in Path("run/config.yaml").read_text()
    test = ["test", f"run_dir={tmp_path}/run", "datamodule.test_steps=1"]
    Path("here").rename("there")
    line = line_of(test, capsys)
    assert f"base.potential_path = {tmp_path}/here/my.pt: no such file; give the path that the file has now" in line
    monkeypatch.chdir("there")
    assert main([*test, "base.potential_path=my.pt"]) == 0
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    content = torch.load(checkpoint)
    for name, value in content["state_dict"].items():
        if name.startswith("proton_density.base.potential.") and value.is_floating_point():
            value += 1e-6
    torch.save(content, checkpoint)
    line = line_of([*test, "base.potential_path=my.pt"], capsys)
    assert f"base.potential_path = {tmp_path}/there/my.pt holds another potential than that of the checkpoint" in line
