from pathlib import Path

import pytest
from fakes import NAMES, build_fakes, job_config, mixed_shards

from capfilt.forecast import survey as surveying
from capfilt.forecast.survey import survey
from capfilt.runs import Run, load_run
from capfilt.shards import find_shards
from pipelines import bootstrap


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Twelve shards of 21 samples, of which five are enough to look at."""
    mixed_shards(tmp_path / "in", shards=12)
    monkeypatch.setattr(surveying, "SURVEYED", 5)
    return tmp_path


def test_of_very_many_shards_some_are_drawn_by_the_seed(folder):
    config, nowhere = job_config(folder), Run(str(folder / "run"), "")
    files = find_shards(config.input)

    found = survey(nowhere, config, files)
    again = survey(nowhere, config, files)
    other = survey(nowhere, config.model_copy(update={"seed": 1}), files)

    assert found.shards == again.shards
    assert [shard.url for shard in found.shards] != [shard.url for shard in other.shards]
    assert (found.files, len(found.shards), found.whole) == (12, 5, False)
    assert found.samples == (252, 252, 252)  # all hold 21
    assert found.bytes.low <= sum(Path(file).stat().st_size for file in files) <= found.bytes.high
    assert str(found) == "12 shards, about 252 samples by 5 of them"


def test_all_are_looked_at_where_that_is_asked_for(folder):
    config = job_config(folder)
    found = survey(Run(str(folder / "run"), ""), config, find_shards(config.input), whole=True)
    assert found.whole
    assert found.bytes == (sum(path.stat().st_size for path in (folder / "in").iterdir()),) * 3


def test_the_shards_of_a_planned_run_are_all_known(folder):
    config = job_config(folder)
    bootstrap.run(config, build_fakes, NAMES, local=True)
    found = survey(load_run(config.run), config, find_shards(config.input))
    assert (found.whole, found.samples_left, found.rest.done) == (True, (0, 0, 0), 252)
