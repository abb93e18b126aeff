"""Units, limits and words of the diagnostics."""

from lightning_vfe.training.variational.diagnostics import diagnostics_with_limits
from lightning_vfe.training.variational.sampling_verdict import state_reasons

GOOD = {
    "r_hat": 1.01,
    "effective_sample_size": 150.0,
    "electron_drift": -0.06,
    "electron_drift_error": 0.02,
    "num_stranded": 0.0,
    "negative_determinants": 0.0,
    "discarded_steps": 10.0,
    "largest_share": 0.19,
    "proton_width_rs": 0.1,
}
BAD = GOOD | {
    "r_hat": 1.06,
    "effective_sample_size": 99.0,
    "electron_drift": -0.09,
    "num_stranded": 1.0,
    "negative_determinants": 1e-3,
    "discarded_steps": 11.0,
    "largest_share": 0.21,
}


def words(values: dict[str, float], is_direct: bool = False) -> dict[str, str]:
    return {row.name: row.word for row in diagnostics_with_limits(values, is_direct, num_steps=20)}


def test_words_follow_the_limits() -> None:
    without = {"electron_drift_error": "", "proton_width_rs": ""}
    limited = [name for name in GOOD if name not in without]
    assert words(GOOD) == dict.fromkeys(limited, "ok") | without
    assert words(BAD) == dict.fromkeys(limited, "look") | without
    assert words(BAD, is_direct=True)["negative_determinants"] == ""
    assert words(GOOD | {"r_hat": float("nan")})["r_hat"] == "look"


def test_units_and_limits_are_shown() -> None:
    rows = {row.name: row for row in diagnostics_with_limits(GOOD, False, 20)}
    assert (rows["r_hat"].unit, rows["r_hat"].limit) == ("1", "<= 1.05")
    assert (rows["effective_sample_size"].unit, rows["effective_sample_size"].limit) == ("samples", ">= 100")
    assert rows["electron_drift"].limit == "<= 0.08"
    assert (rows["proton_width_rs"].unit, rows["proton_width_rs"].limit) == ("rs", "")


def test_a_sample_that_makes_the_variance_is_named() -> None:
    assert state_reasons(GOOD, True, 0.0, "datamodule.test_steps") == []
    (reason,) = state_reasons(GOOD | {"largest_share": 0.8}, True, 0.0, "datamodule.test_steps")
    assert reason.startswith("one sample makes 80 % of the variance of F")
