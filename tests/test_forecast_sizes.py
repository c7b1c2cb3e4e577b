"""What is said of the size of clean shards before a job is held to what the job then writes."""

import json
from pathlib import Path

import pytest
from fakes import COLOURS, NAMES, build_fakes, job_config, mixed_shards, picture

from capfilt.config import ExportConfig
from capfilt.forecast.sizes import bytes_of_listed
from capfilt.forecast.survey import survey
from capfilt.runs import Run
from capfilt.shards import find_shards
from pipelines import bootstrap, bootstrap_dry_run, export

ALL = {"web_itm": 0, "synthetic_itm": 0}


def list_of_images(folder: Path, samples: int = 21) -> int:
    """Write pictures and the list that names them, and return the bytes of all together."""
    folder.mkdir()
    images = [picture(COLOURS[n % 3], (200 + n, 100)) for n in range(samples)]
    for n, image in enumerate(images):
        (folder / f"{n}.png").write_bytes(image)
    lines = [json.dumps({"image": f"{n}.png", "caption": f"a {n}"}) for n in range(samples)]
    (folder / "list.jsonl").write_text("\n".join(lines))
    return sum(path.stat().st_size for path in folder.iterdir())


@pytest.mark.parametrize("write", [mixed_shards, list_of_images])
@pytest.mark.parametrize("captions", [1, 8])
def test_clean_shards_are_no_larger_than_a_dry_run_says(tmp_path, write, captions):
    write(tmp_path / "in")
    config = job_config(tmp_path, export=True, policy=ALL, sampling={"captions": captions})
    _, found = bootstrap_dry_run.look(config, lambda _: NAMES)

    bootstrap.run(config, build_fakes, NAMES, local=True)

    (clean,) = (tmp_path / "run/clean").iterdir()
    written = sum(path.stat().st_size for path in clean.iterdir())
    assert found.bytes_left.low < written < found.most_clean(captions)


def test_a_list_is_as_large_as_the_images_that_it_names(tmp_path):
    size = list_of_images(tmp_path / "in")
    config = job_config(tmp_path)
    found = survey(Run(str(tmp_path / "run"), ""), config, find_shards(config.input))
    assert size < found.bytes.likely < size + 21 * 3 * 1024
    assert found.bytes_left == found.bytes


def test_an_export_says_the_same_of_a_list(tmp_path):
    size = list_of_images(tmp_path / "in")
    config = job_config(tmp_path, policy=ALL)
    bootstrap.run(config, build_fakes, NAMES, local=True)
    told = dict(export.dry_run(ExportConfig(run=config.run, policy=config.policy)).facts)["writes"]
    kilobytes = float(told.split(", up to ")[1].split(" kB")[0])
    assert 1000 * kilobytes > size


def test_where_nothing_is_a_list_nothing_is_read(tmp_path):
    mixed_shards(tmp_path / "in")
    found = survey(Run(str(tmp_path / "run"), ""), job_config(tmp_path), find_shards([str(tmp_path / "in")]))
    for path in (tmp_path / "in").iterdir():
        path.unlink()
    assert bytes_of_listed(found.shards, seed=0) == 0.0
