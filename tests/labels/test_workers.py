"""Labelling in processes: the same labels, failures that stay single, nothing left behind."""

import os
import time

import numpy as np
import pytest

from lightning_vfe.labels.label import Configuration, Label, ase_label
from lightning_vfe.labels.workers import HELD, ProcessLabeller, _Worker
from tests.helpers.calculators import Awkward, Slow, lennard_jones

LENGTH = 5.0


def configurations(first: list[float]) -> list[Configuration]:
    """Four atoms each, the first of which has this fraction of the cell as its x."""
    rng = np.random.default_rng(0)
    made = []
    for fraction in first:
        positions = rng.uniform(0, LENGTH, (4, 3))
        positions[0, 0] = fraction * LENGTH
        made.append(Configuration(positions, LENGTH))
    return made


def test_a_signal_while_a_process_starts_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C reaches all processes; those that still import their modules let the first one decide."""
    (place,) = configurations([0.2])
    for number in HELD:
        worker = _Worker(lennard_jones)
        assert worker.process.pid is not None
        os.kill(worker.process.pid, number)
        worker.give(0, place)
        index, label = worker.index, worker.pipe.recv()
        worker.stop()
        assert index == 0
        assert isinstance(label, Label)
    assert capfd.readouterr().err == ""


def test_processes_give_the_labels_of_one(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    places = configurations([0.1, 0.7, 0.2, 0.95, 0.3, 0.4])
    results = dict(ProcessLabeller(Awkward, num_processes=2)(places))
    assert sorted(results) == list(range(6))
    assert results[1] == "RuntimeError: no convergence"
    assert "died with exit code 7" in str(results[3])
    for index in (0, 2, 4, 5):
        label, expected = results[index], ase_label(lennard_jones(), places[index])
        assert isinstance(label, Label)
        assert label.free_energy != expected.free_energy, "Awkward has other settings"
    leftovers = [path for path in tmp_path.iterdir() if "lightning-vfe-label" in path.name]
    assert len(leftovers) <= 1, "only the process that died may leave its folder"
    assert not os.path.exists("left_behind.txt")


def test_serial_and_parallel_agree() -> None:
    places = configurations([0.1, 0.6, 0.8])
    results = dict(ProcessLabeller(lennard_jones, num_processes=2)(places))
    for index, place in enumerate(places):
        expected, label = ase_label(lennard_jones(), place), results[index]
        assert isinstance(label, Label)
        assert label.free_energy == expected.free_energy
        np.testing.assert_array_equal(label.forces, expected.forces)


def test_closing_ends_the_processes(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    (tmp_path / "pids").mkdir()
    monkeypatch.setenv("SLOW_PIDS", str(tmp_path / "pids"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    # the second one fails at once, so that the iterator hands something out while the first is still at work
    results = ProcessLabeller(_slow_or_broken, num_processes=2)(configurations([0.1, 0.2]))
    assert "broken" in str(next(results)[1])
    results.close()
    for pid in (tmp_path / "pids").iterdir():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.name), 0)
    assert [path.name for path in tmp_path.iterdir() if "lightning-vfe-label" in path.name] == []


def _slow_or_broken() -> Slow:
    """Slow for the process that comes first, broken for the other."""
    folder = os.environ["SLOW_PIDS"]
    try:
        os.mkdir(os.path.join(os.path.dirname(folder), "first"))
    except FileExistsError:
        while not os.listdir(folder):
            time.sleep(0.01)
        raise RuntimeError("broken") from None
    return Slow()


def test_no_process_is_refused() -> None:
    with pytest.raises(ValueError, match="num_processes = 0"):
        ProcessLabeller(lennard_jones, num_processes=0)
