"""A labelling run: rounds, interruption and resumption, failures, force checks, configurations of a file."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch

from lightning_vfe.labels.committee import CommitteeSettings
from lightning_vfe.labels.database import LabelDatabase, LabelState
from lightning_vfe.labels.files import find_configurations, read_configurations
from lightning_vfe.labels.label import Configuration, Label, ase_label
from lightning_vfe.labels.rounds import LabelRun
from lightning_vfe.labels.store import LabelStore
from lightning_vfe.models.potential.yukawa import YukawaPotential
from lightning_vfe.sampling.boltzmann import ChainSettings
from tests.helpers.calculators import SETTINGS, WrongForces, lennard_jones

STATES = [LabelState(2, 1.25, 6000.0), LabelState(4, 1.25, 6000.0)]
PROVENANCE = {"code_version": "0.1", "program": "test", "command": ["lightning-vfe label"]}


class InProcess:
    """Labels one after the other; stops like Ctrl-C after some of them, and fails on the numbers in `broken`."""

    def __init__(self, stop_after: int | None = None, broken: Sequence[int] = (), make=lennard_jones) -> None:
        self.stop_after, self.broken, self.make, self.calls = stop_after, broken, make, 0

    def __call__(self, configurations: Sequence[Configuration]) -> Iterator[tuple[int, Label | str]]:
        for index, configuration in enumerate(configurations):
            if self.calls == self.stop_after:
                raise KeyboardInterrupt
            self.calls += 1
            if index in self.broken:
                yield index, "RuntimeError: no convergence"
            else:
                yield index, ase_label(self.make(), configuration)


def labelling(path: Path, labeller: InProcess, lines: list[str] | None = None, **settings) -> LabelRun:
    store = LabelStore(path, STATES, SETTINGS)
    store.update_metadata(**PROVENANCE)
    return LabelRun(
        store,
        labeller,
        STATES,
        YukawaPotential(),
        num_configurations=5,
        chains=ChainSettings(num_walkers=4, equilibration_steps=30, spacing=20),
        report=(lines if lines is not None else []).append,
        **settings,
    )


def test_an_interrupted_run_goes_on_with_the_same_configurations(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole.db", tmp_path / "broken.db"
    labelling(whole, InProcess()).run()
    with pytest.raises(KeyboardInterrupt):
        labelling(broken, InProcess(stop_after=4)).run()
    assert len(LabelDatabase.open(broken)) == 4
    second = InProcess()
    labelling(broken, second, num_force_checks=0).run()
    assert second.calls == 6, "finished labels are not made again"
    for state in STATES:
        expected, found = (LabelDatabase.open(p).arrays(state.num_atoms, state.rs) for p in (whole, broken))
        for name in expected:
            np.testing.assert_array_equal(expected[name], found[name])


def test_failures_are_kept_and_skipped(tmp_path: Path) -> None:
    lines: list[str] = []
    run = labelling(tmp_path / "labels.db", InProcess(broken=(1, 7)), lines, num_force_checks=0)
    run.run()
    assert len(LabelDatabase.open(tmp_path / "labels.db")) == 8
    assert [message for _, message in run.store.failures()] == ["RuntimeError: no convergence"] * 2
    assert any("2 configurations have no label" in line and "no convergence" in line for line in lines)
    again = InProcess()
    labelling(tmp_path / "labels.db", again, num_force_checks=0).run()
    assert again.calls == 0, "a failure is not tried again by itself"


def test_nothing_but_failures_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"no configuration could be labelled.*no convergence"):
        labelling(tmp_path / "labels.db", InProcess(broken=range(10))).run()


def test_active_rounds_train_on_what_is_there(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def train(path: str, seed: int) -> YukawaPotential:
        seen.append((len(LabelDatabase.open(path)), seed))
        return YukawaPotential(1.0 + 0.1 * len(seen))

    path, lines = tmp_path / "labels.db", []
    committee = CommitteeSettings(size=2, candidates=3)
    labelling(path, InProcess(), lines, num_force_checks=0).run()
    labelling(path, InProcess(), lines, rounds=2, train=train, committee=committee).run()
    assert [count for count, _ in seen] == [10, 10, 20, 20]
    assert len({seed for _, seed in seen}) == 4
    arrays = LabelDatabase.open(path).arrays(4, 1.25)
    assert np.bincount(arrays["round"]).tolist() == [5, 5, 5]
    assert sum("the committee disagrees" in line for line in lines) == 4


def test_all_parts_of_the_work_show_how_far_they_are(tmp_path: Path) -> None:
    heard: list[tuple[str, int, int]] = []

    def progress(what: str, done: int, total: int) -> None:
        heard.append((what, done, total))

    labelling(tmp_path / "labels.db", InProcess(), progress=progress).run()
    ends = [(what, total) for what, done, total in heard if done == total]
    sampling = [(f"sample N = {n}, rs = 1.25", 70) for n in (2, 4)]  # 30 steps, and two times 20
    assert ends == [*sampling, ("label round 0", 10), ("check forces", 4)]
    steps = [done for what, done, _ in heard if what == "sample N = 2, rs = 1.25"]
    assert steps == list(range(10, 80, 10))


def test_a_run_goes_on_with_its_own_numbers_only(tmp_path: Path) -> None:
    path = tmp_path / "labels.db"
    labelling(path, InProcess())
    labelling(path, InProcess(), num_force_checks=0, seed=42).run()  # a database without rows takes any seed
    with pytest.raises(ValueError, match=r"^seed = 7 differs from 42"):
        labelling(path, InProcess(), seed=7)
    with pytest.raises(ValueError, match=r"^rounds = -1"):
        labelling(path, InProcess(), rounds=-1)


def test_forces_are_checked(tmp_path: Path) -> None:
    lines: list[str] = []
    good = labelling(tmp_path / "good.db", InProcess(), lines, num_force_checks=3)
    good.run()
    checks = good.store.metadata["force_checks"]
    assert len(checks) == 3
    for check in checks:
        assert check["force"] == pytest.approx(check["finite_difference"], rel=0.02, abs=1e-4)
    assert len(lines) == 5
    assert not any("warning" in line for line in lines)
    lines.clear()
    bad = labelling(tmp_path / "bad.db", InProcess(make=WrongForces), lines, num_force_checks=2)
    bad.run()
    for check in bad.store.metadata["force_checks"]:
        assert check["force"] == pytest.approx(2 * check["finite_difference"], rel=1e-6)
    assert sum(line.startswith("warning: force of row") for line in lines) == 2


def test_configurations_of_a_database(tmp_path: Path) -> None:
    labelling(tmp_path / "labels.db", InProcess(), num_force_checks=0).run()
    given = read_configurations(tmp_path / "labels.db", [LabelState(4, 1.25, 500.0)], 3)
    assert list(given) == [LabelState(4, 1.25, 500.0)]
    arrays = LabelDatabase.open(tmp_path / "labels.db").arrays(4, 1.25)
    (chosen,) = given.values()
    np.testing.assert_array_equal(np.stack([one.positions for one in chosen]), arrays["positions"][:3])
    with pytest.raises(ValueError, match="has no frame of num_atoms = 4, rs = 2"):
        read_configurations(tmp_path / "labels.db", [LabelState(4, 2.0, 500.0)], 3)
    (tmp_path / "text.xyz").write_text("nothing")
    with pytest.raises(ValueError, match=r"^configurations_path = .* cannot be read by ASE"):
        read_configurations(tmp_path / "text.xyz", STATES, 3)


def test_frames_of_other_states_and_rounded_boxes(tmp_path: Path) -> None:
    """A box of few digits is that of the state; others are counted; the message lists what is there."""
    state, (first, second) = (
        LabelState(2, 1.25, 0.0),
        (LabelState(2, 1.25, 0.0).cell.length, LabelState(2, 1.3, 0.0).cell.length),
    )
    positions = np.array([[0.1, 0.2, 0.3], [1.1, 0.9, 0.7]])
    frames = [Configuration(positions, length).to_atoms() for length in (first * (1 + 5e-6), second, first)]
    ase.io.write(tmp_path / "some.xyz", frames)
    found = find_configurations(tmp_path / "some.xyz", [state], 10)
    assert (found.num_frames, found.num_other) == (3, 1)
    for configuration in found.chosen[state]:
        assert configuration.length == pytest.approx(first, rel=1e-8)
        np.testing.assert_allclose(configuration.positions, positions, rtol=2e-5)
    with pytest.raises(ValueError, match=r"it holds 2 of N = 2, rs = 1.25; 1 of N = 2, rs = 1.3; set label.num_atoms"):
        find_configurations(tmp_path / "some.xyz", [LabelState(2, 2.0, 0.0)], 10)
    keys = ("system.num_atoms", "system.rs")
    with pytest.raises(ValueError, match=r"^trajectory = .* set system.num_atoms and system.rs to what it holds"):
        find_configurations(tmp_path / "some.xyz", [LabelState(2, 2.0, 0.0)], 10, "trajectory", keys)
    frames[1].positions[1, 0] = np.nan
    ase.io.write(tmp_path / "broken.xyz", frames)
    with pytest.raises(ValueError, match="frame 1 has positions that are not finite"):
        find_configurations(tmp_path / "broken.xyz", [state], 10)


def test_given_configurations_are_labelled(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    positions = torch.rand(2, 2, 3, generator=generator).numpy() * STATES[0].cell.length
    given = {STATES[0]: [Configuration(one, STATES[0].cell.length) for one in positions]}
    labelling(tmp_path / "labels.db", InProcess(), given=given, num_force_checks=0).run()
    database = LabelDatabase.open(tmp_path / "labels.db")
    assert database.groups() == [(2, 1.25)]
    np.testing.assert_allclose(database.arrays(2, 1.25)["positions"], positions, rtol=1e-13)
