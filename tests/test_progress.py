"""What a progress line shows: on terminals of several widths, and in a pipe."""

from __future__ import annotations

import re

import pytest

from lightning_vfe.errors import SettingError
from lightning_vfe.progress import ProgressLine, duration, fitted_line, words

VALUES = {
    "F": "-0.97896+-0.00012",
    "S": "7.79",
    "P": "-195",
    "acc_p": "0.51",
    "acc_e": "0.62",
    "E": "-0.8309",
    "R-hat": "1.01",
}


class Terminal:
    """Stands for stdout of a terminal."""

    def __init__(self) -> None:
        self.text = ""
        self.encoding = "utf-8"

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("count", ["fit 7/150", "fit 1234/12000"])
def test_80_columns_show_f_s_p_and_acceptances(count: str) -> None:
    line = fitted_line((count, "1:12:34 left" if "12000" in count else "2:34 left"), VALUES, 0.5, 79)
    assert len(line) <= 79
    wanted = ["F", "S", "P", *(["acc_p"] if "12000" in count else ["acc_p", "acc_e"])]
    assert re.findall(r"([\w-]+)=", line)[: len(wanted)] == wanted


def test_wide_terminals_show_everything_and_a_bar() -> None:
    line = fitted_line(("fit 7/150", "2:34 left"), VALUES, 0.5, 160)
    assert all(f" {name}={value}" in line for name, value in VALUES.items())
    assert line.count("█") == line.count("░") == 10
    assert fitted_line(("fit 7", "after 2:34"), {}, None, 80) == "fit 7 after 2:34"


def test_a_narrow_terminal_keeps_the_first_values() -> None:
    for width in range(20, 120):
        line = fitted_line(("fit 7/150", "2:34 left"), VALUES, 0.5, width)
        names = re.findall(r"([\w-]+)=", line)
        assert len(line) <= max(width, 20)
        assert names == list(VALUES)[: len(names)]


def test_a_pipe_has_whole_lines_with_the_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first state, one line for each interval, and the last state; no carriage returns."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    line = ProgressLine(progress_seconds=10.0)
    for step in range(31):
        now[0] = 100.0 + step
        line.show("fit", step, 30, {"F": f"{-step}+-1"})
    line.close()
    printed = capsys.readouterr().out
    assert "\r" not in printed
    assert "\x1b" not in printed
    rows = printed.splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  fit \d+/30  ", row) for row in rows)
    assert [re.findall(r"fit (\d+)/30  (.*?)  F=", row)[0] for row in rows] == [
        ("0", "-:-- left"),
        ("10", "0:20 left"),
        ("20", "0:10 left"),
        ("30", "in 0:30"),
    ]


def test_the_last_state_is_shown_once_and_before_the_next_work(capsys: pytest.CaptureFixture[str]) -> None:
    line = ProgressLine(progress_seconds=1000.0)
    assert list(line.track("equilibrate", range(3), 3)) == [0, 1, 2]
    line.show("fit", 1, None)
    line.show("fit", 2, None)
    line.show("test", 1, 2)
    line.close()
    line.close()
    rows = [row.split("  ")[1] for row in capsys.readouterr().out.splitlines()]
    assert rows == ["equilibrate 0/3", "equilibrate 3/3", "fit 1", "fit 2", "test 1/2"]


def test_a_terminal_has_one_live_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    line = ProgressLine()
    for step in range(3):
        line.show("fit", step, 2, VALUES)
    line.close()
    shown = re.sub(r"\x1b\[[?\d]*[a-zA-Z]", "", terminal.text)
    last = shown.replace("\r", "\n").rstrip("\n").rpartition("\n")[2]
    assert last.startswith("fit 2/2 ")
    assert f"F={VALUES['F']} S=7.79" in last
    assert len(last) <= 80
    assert shown.count("\n") == 1, "one line is left"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (61, "1:01"), (3599.6, "1:00:00"), (7384, "2:03:04"), (200000, "2 d 7 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.6, "3 s"), (1314, "21 min 54 s"), (7500, "2 h 5 min"), (100000, "1 d 3 h")]
)
def test_times_in_words(seconds: float, text: str) -> None:
    assert words(seconds) == text


def test_an_interval_must_be_positive() -> None:
    with pytest.raises(SettingError, match="progress_seconds = 0 must be positive"):
        ProgressLine(0)


def test_a_line_of_its_own_leaves_the_live_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ProgressLine()
    line.show("fit", 1, 5)
    line.say("about 4:10")
    assert re.search(r"^\d{4}-\d\d-\d\d [\d:]{8}  about 4:10$", capsys.readouterr().out, re.MULTILINE)
    line.close()
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    line.show("fit", 1, 5)
    line.say("about 4:10")
    line.show("fit", 5, 5)
    line.close()
    assert "about 4:10\n" in terminal.text
    assert "fit 5/5" in terminal.text.split("about 4:10\n")[1]
