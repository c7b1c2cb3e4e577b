"""The benchmark of a bootstrap on a GPU runs in one process and on Ray; here on a CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "on_gpu.py"


@pytest.mark.slow
def test_each_case_has_a_rate_an_idle_share_and_a_share_of_the_peak(tmp_path):
    size = ["--model", "tiny", "--device", "cpu", "--images", "48", "--distinct", "8", "--unit", "16"]
    cases = ["--captions", "1", "2", "--batch", "8", "--rounds", "1", "--json", str(tmp_path / "out")]
    subprocess.run([sys.executable, str(SCRIPT), *size, *cases], capture_output=True, check=True, text=True)
    result = json.loads((tmp_path / "out").read_text())
    needed: dict[int, list[float]] = {1: [], 2: []}
    for mode, n in (("process", 1), ("process", 2), ("ray", 1), ("ray", 2)):
        found = result[f"{mode}, n = {n}, batches of 8"]
        assert found["images_per_second"] == pytest.approx(found["of_rounds"][0])
        assert 0 < found["idle_share"] < 1
        # by what the images need, which is one number for each n; over 1 if the peak was measured on a busy machine
        needed[n].append(found["share_of_matrix_peak"] / found["images_per_second"])
    assert needed[1] == pytest.approx([needed[1][0]] * 2, rel=0.05)
    assert needed[2] == pytest.approx([needed[2][0]] * 2, rel=0.05)
    assert 0 < needed[1][0] < needed[2][0]
