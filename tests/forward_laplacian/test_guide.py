"""The guide for authors of rules: its code runs as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "forward_laplacian.md"


def test_the_blocks_of_the_guide_run_one_after_the_other(tmp_path: Path) -> None:
    """In a process of its own, since the guide registers a rule."""
    program = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL))
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "kinetic energy in Ha torch.Size([5])" in done.stdout
