"""The line that tells of a base whose labels had other boundary conditions than the electrons."""

from pathlib import Path

import pytest

from lightning_vfe.models.potential.storage import save_potential
from lightning_vfe.models.potential.yukawa import YukawaPotential
from lightning_vfe.workflows.boundary import base_note
from lightning_vfe.workflows.compose import compose_config
from lightning_vfe.workflows.overrides import parse

BULK = "potentials/h_rs1p25_6000K.pt"
TWISTS = "potentials/h8_rs1p25_6000K_twists222.pt"
GAMMA = "potentials/h8_rs1p25_6000K_gamma.pt"


def note(*words: str) -> str:
    """The line of a run with these overrides."""
    return base_note(compose_config(parse(words)))


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["system.twist_symmetry=none"],
        ["system.twist_symmetry=cubic"],
        ["base=uniform", "system.twists=[1,1,1]"],
        ["system.twists=[1,1,1]", f"base.potential_path={GAMMA}"],
        ["system.twist_shift=[0.5,0.5,0.5]", f"base.potential_path={BULK}"],
        ["experiment=n2_exact"],
        ["experiment=bcc16_ground_state"],
        ["experiment=flow_mle_rs1p25_6000K"],
        ["experiment=potential_rs1p25_6000K"],
    ],
)
def test_nothing_where_they_agree(words: list[str]) -> None:
    assert note(*words) == ""


def test_one_line_where_they_do_not_with_the_potential_that_fits() -> None:
    assert note("system.twists=[1,1,1]") == (
        f"labels of base.potential_path={TWISTS}: 8 twists without Gamma; electrons: Gamma; "
        f"F stays an upper bound, but the correction of the base is larger; base.potential_path={GAMMA} has those of "
        "the electrons"
    )
    line = note("system.twists=baldereschi")
    assert "electrons: the twist (0.25, 0.25, 0.25); F stays an upper bound" in line
    assert line.endswith("larger"), "no shipped potential has this twist alone"
    assert "electrons: random twists" in note("system.twists=random")
    assert "8 twists with Gamma; electrons: 8 twists without Gamma" in note(f"base.potential_path={BULK}")


def test_labels_that_do_not_tell(tmp_path: Path) -> None:
    file = tmp_path / "own.pt"
    for label in ({}, {"calculator": {"_target_": "ase.calculators.lj.LennardJones"}}):
        save_potential(YukawaPotential(), file, {"rs_range": [1.0, 2.0], "temperature_kelvin": 6000.0, "label": label})
        assert note(f"base.potential_path={file}") == ""
