"""Tasks beside the variational one: fit, go on, validate and test by the command line, and one line for bad input."""

import json
from pathlib import Path

import pytest
import torch

from lightning_vfe.cli import main
from lightning_vfe.labels.label import Configuration
from lightning_vfe.models.potential.storage import load_potential
from lightning_vfe.models.potential.yukawa import YukawaPotential
from lightning_vfe.physics.cell import PeriodicCell
from tests.helpers.labels import write_database
from tests.helpers.refusals import error_line

POTENTIAL = ["experiment=potential_rs1p25_6000K", "trainer.accelerator=cpu", "logger=csv"]
SMALL = ["potential.num_features=4", "potential.num_interactions=1", "potential.num_radial=6"]
FLOW = ["experiment=flow_mle_rs1p25_6000K", "trainer.accelerator=cpu", "logger=csv", "data=trajectory"]
FLOW += ["data.source.trajectory=run.xyz", "system.num_atoms=2", "flow.num_steps=1", "flow.num_layers=1"]
FLOW += ["flow.num_channels=2", "flow.num_radial=2", "datamodule.batch_size=8", "module.num_walkers=4"]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_potential_from_labels_to_test(capsys: pytest.CaptureFixture[str]) -> None:
    write_database(Path("labels.db"), YukawaPotential(1.0, 0.9, 4.0), count=8)
    given = ["datamodule.database=labels.db", "trainer.max_steps=6", "callbacks.checkpoint.every_n_steps=2"]
    assert main(["fit", *POTENTIAL, *SMALL, *given]) == 0
    assert main(["fit", *POTENTIAL[:1], "ckpt_path=last", "trainer.max_steps=8"]) == 0
    run = Path("runs/potential_rs1p25_6000K")
    assert load_potential(run / "potential.pt")[1]["step"] == 8
    assert main(["validate", *POTENTIAL[:1]]) == 0
    assert main(["test", *POTENTIAL[:1]]) == 0
    content = json.loads((run / "potential_summary.json").read_text())
    assert content["step"] == 8
    assert content["num_test"] == 2
    assert content["label"]["num_configurations"] == 16
    assert (run / "figures" / "parity.png").is_file()
    steps = [line.split(",")[0] for line in (run / "metrics.csv").read_text().splitlines()[1:]]
    assert sorted({int(step) for step in steps}) == list(range(8))
    # a correction on top of it
    delta = ["experiment=delta_ml_rs1p25_6000K", f"potential.baseline.path={run / 'potential.pt'}", *given]
    assert main(["fit", *delta, *POTENTIAL[1:], "potential.correction.num_features=4"]) == 0
    assert (Path("runs/delta_ml_rs1p25_6000K") / "potential.pt").is_file()
    assert "potential.cutoff = 3 here but 4.0" in error_line(["test", *POTENTIAL[:1], "potential.cutoff=3"], capsys)


def test_bad_input_of_the_potential_ends_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for words, part in [
        (["datamodule.database=none.db"], "datamodule.database = none.db"),
        (["wavefunction=geminal"], "wavefunction = geminal is not possible in experiment potential_rs1p25_6000K"),
        (["system.rs=2"], "system.rs = 2 is not a key"),
        (["potential.cutof=2"], "did you mean 'potential.cutoff'"),
        (["module.ema_decay=2"], "module.ema_decay = 2"),
        (["optimizer.optimizer.lr=-1"], "optimizer.optimizer = AdamW refuses its settings: Invalid learning rate: -1"),
        (["datamodule.batch_size=0"], "datamodule.batch_size = 0"),
        (["potential.cutoff=-1"], "potential.cutoff = -1"),
        (["trainer.max_steps=-1"], "trainer.max_steps = -1 sets no end"),
        (["potential.cutoff=1000"], "potential.cutoff = 1000.0 must be positive and at most"),
    ]:
        assert part in error_line(["fit", *POTENTIAL, *words], capsys)
    delta = ["experiment=delta_ml_rs1p25_6000K", "potential.baseline.path=none.pt"]
    assert "potential.baseline.path = none.pt" in error_line(["fit", *delta], capsys)
    assert "is not possible in task variational" in error_line(["fit", "potential=schnet"], capsys)


def test_a_flow_from_a_trajectory_into_a_variational_run(capsys: pytest.CaptureFixture[str]) -> None:
    import ase.io

    cell = PeriodicCell(2, 1.25)
    z = torch.rand(40, 2, 3, generator=torch.Generator().manual_seed(0)).double() * cell.length
    ase.io.write("run.xyz", [Configuration(one.numpy(), cell.length).to_atoms() for one in z])
    few = ["module.equilibration_sweeps=2", "module.test_sweeps=2", "trainer.max_steps=4"]
    assert main(["fit", *FLOW, *few]) == 0
    assert main(["test", *FLOW[:1]]) == 0
    run = Path("runs/flow_mle_rs1p25_6000K")
    content = json.loads((run / "flow_summary.json").read_text())
    assert content["step"] == 4
    assert "kl_data_model_per_atom" not in content
    last = run / "checkpoints" / "last.ckpt"
    smoke = ["experiment=smoke", "trainer.accelerator=cpu", "logger=csv", "system.rs=1.25", f"flow_ckpt={last}"]
    line = error_line(["fit", *smoke, "flow.num_channels=3"], capsys)
    assert "flow.num_channels = 3 here but 2 in" in line
    assert "flow_ckpt = none.ckpt does not exist" in error_line(["fit", *smoke[:-1], "flow_ckpt=none.ckpt"], capsys)
    line = error_line(["fit", *smoke, "system.protons=fixed", "system.structure=sc"], capsys)
    assert "needs moving protons" in line
    assert main(["fit", *smoke, "optimizer.flow_learning_rate=1e-30", "trainer.max_steps=2"]) == 0
    files = (last, Path("runs/smoke/checkpoints/last.ckpt"))
    states = [torch.load(file, weights_only=True)["state_dict"] for file in files]
    names = [name for name in states[0] if name.startswith("proton_density.flow.")]
    assert names
    assert all(torch.equal(states[0][name], states[1][name]) for name in names)
