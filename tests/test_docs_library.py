"""The code on the page about notebooks runs as it is printed there."""

import re
from pathlib import Path

from models import lively_checkpoint
from pairs import png

from capfilt.med.checkpoints import save

PAGE = (Path(__file__).parent.parent / "docs/library.md").read_text()
JOB = """
input: [web.tar]
run: run
captioner: captioner
filter: filter
sampling: {max_length: 12, min_length: 6}
device: {kind: cpu}
"""


def test_a_notebook_captions_scores_and_decides(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.+?)```", PAGE, re.DOTALL)
    for seed, role in enumerate(("captioner", "filter")):
        save(lively_checkpoint(tmp_path, seed), tmp_path / role)
    (tmp_path / "my.yaml").write_text(JOB)
    (tmp_path / "pictures").mkdir()
    for colour in ("red", "blue"):
        (tmp_path / f"pictures/{colour}.jpg").write_bytes(png(colour))
    (tmp_path / "pictures/torn.jpg").write_bytes(png()[:40])
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code, names)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:2] for line in lines] == [
        [f"{colour}.jpg", source] for colour in ("blue", "red") for source in ("web", *3 * ["synthetic"])
    ]
    assert {line[3] for line in lines} <= {"kept", "low_itm", "duplicate"}
    assert all(0 <= float(line[2]) <= 1 for line in lines)
    assert list(names["failed"]) == ["torn.jpg"]  # type: ignore[call-overload]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name in ("run", "web.tar")) == []
