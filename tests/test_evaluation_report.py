import hashlib
import json

import pytest
from annotated import config, write_set
from models import small_checkpoint

from capfilt.errors import CheckpointError
from capfilt.evaluation.report import Measured, report
from capfilt.med.checkpoints import checkpoint_hash, save


def test_the_result_holds_all_it_takes_to_get_it_again(tmp_path):
    save(small_checkpoint(tmp_path), write_set(tmp_path) / "model")
    settings = config(tmp_path, device={"dtype": "float32"})
    file = tmp_path / "captions.jsonl"
    measured = Measured({"r1": 50.0}, [str(file)], {"a.jpg": "truncated", "b.jpg": "truncated", "c.jpg": "too_large"})
    found = json.loads(json.dumps(report(settings, measured, 1.234)))
    assert found["figures"] == {"r1": 50.0}
    assert found["left_out"] == {"truncated": 2, "too_large": 1}
    assert found["left_out_images"]["c.jpg"] == "too_large"
    assert found["checkpoint"] == {"path": settings.checkpoint, "hash": checkpoint_hash(tmp_path / "model")}
    assert found["files"] == [{"path": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}]
    assert found["config"] == settings.model_dump(mode="json")
    assert {"python", "torch", "timm", "numpy"} <= set(found["versions"])
    assert (found["device"]["kind"], found["device"]["dtype"], found["seconds"]) == ("cpu", "float32", 1.23)
    assert "written" not in found


def test_a_checkpoint_that_went_away_is_told(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        report(config(write_set(tmp_path)), Measured({}, []), 0.0)
