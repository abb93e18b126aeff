"""A run as an object: networks and walkers where training left them, tables, figures, and the chains that go on."""

import shutil

import matplotlib.figure
import pytest
import torch

import lightning_vfe as lv
from lightning_vfe.cli import main
from lightning_vfe.errors import CommandError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    words = ["experiment=smoke", "system.rs=[1.9,2.1]", "trainer.max_steps=2", "trainer.accelerator=cpu"]
    assert main(["fit", *words, f"run_dir={path}"]) == 0
    assert main(["test", f"run_dir={path}", "datamodule.test_steps=4"]) == 0
    return path


def test_networks_and_walkers_are_those_of_the_checkpoint(folder):
    run = lv.load(folder)
    content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False)
    assert run.step == 2
    for name, value in run.module.state_dict().items():
        assert torch.equal(value, content["state_dict"][name]), name
    saved = content["walkers"]["fields"]
    for name in ("protons", "electrons", "stratum"):
        assert torch.equal(run.state.walkers[name], saved[name]), name


def test_networks_at_own_points(folder):
    run = lv.load(folder)
    batch = run.state.current()
    assert len(set(batch.stratum.tolist())) == 2
    sample = run.energies(batch.protons, batch.electrons, batch.states)
    expected = run.state.energies(batch)
    torch.testing.assert_close(sample.electronic.total, expected.electronic.total, rtol=1e-12, atol=1e-12)
    log_psi = run.log_psi(batch.protons, batch.electrons, batch.states)
    assert log_psi.is_complex()
    assert log_psi.shape == batch.electrons.shape[:2]
    log_prob = run.log_prob(batch.protons, batch.states)
    torch.testing.assert_close(log_prob, expected.protons.log_prob, rtol=1e-9, atol=1e-9)
    second = batch.stratum == 1
    torch.testing.assert_close(
        run.log_prob(batch.protons[second], run.at(1, int(second.sum()))), log_prob[second], rtol=1e-12, atol=1e-12
    )


def test_a_run_of_several_states_asks_for_one_of_them(folder):
    run = lv.load(folder)
    batch = run.state.current()
    message = r"^states = None: this run has 2 state points and 1 twists; give states=run.at"
    for call in (lambda: run.log_prob(batch.protons), lambda: run.log_psi(batch.protons, batch.electrons)):
        with pytest.raises(ValueError, match=message):
            call()


def test_chains_go_on_as_those_of_the_run_would(folder):
    first, second = lv.load(folder), lv.load(folder)
    before = first.state.walkers.protons.clone()
    for run in (first, second):
        run.state.sweep()
    assert not torch.equal(first.state.walkers.protons, before)
    assert torch.equal(first.state.walkers.electrons, second.state.walkers.electrons)
    estimates = first.state.expect(lambda batch: first.state.energies(batch).terms["energy_per_atom"], num_sweeps=4)
    assert [estimate.error > 0 for estimate in estimates] == [True, True]


def test_tables_and_figures(folder):
    run = lv.load(folder)
    assert len(run.metrics) == 2
    assert {"quantity", "value", "error", "unit"} <= set(run.results.reset_index().columns)
    assert len(run.pair_correlation) > 0
    assert run.structure_factor.index.name == "k_per_bohr"
    assert "finite_size_energy_per_atom" not in run.results.index.get_level_values("term")  # too small a cell
    figures = (run.plot_training(), run.plot_terms(), run.plot_pair_correlation(), run.plot_structure_factor())
    for figure in figures:
        assert isinstance(figure, matplotlib.figure.Figure)


def test_a_folder_without_a_run_is_refused(folder, tmp_path):
    with pytest.raises(CommandError, match=r"^run = .*last.ckpt does not exist"):
        lv.load(tmp_path)
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "checkpoints" / "last.ckpt").unlink()
    (tmp_path / "copy" / "checkpoints" / "last.ckpt").write_bytes(b"nothing")
    with pytest.raises(CommandError, match=r"^run = .* is damaged"):
        lv.load(tmp_path / "copy")
