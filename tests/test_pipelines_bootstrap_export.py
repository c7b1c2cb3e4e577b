"""The clean shards of a bootstrap job: the same bytes however it runs, and inputs of the next round."""

import pytest
from fakes import NAMES, build_fakes, build_nothing, job_config, mixed_shards, write_shard

from capfilt.config import ExportConfig, Policy
from capfilt.ledger import read_candidates, read_samples
from capfilt.query import open_run
from capfilt.runs import load_run
from capfilt.scan import scan
from capfilt.stats import summarise
from capfilt.verify import verify
from pipelines import bootstrap, export
from pipelines.bootstrap_dry_run import look


def test_a_job_that_exports_nothing_leaves_the_files_in_the_making_to_an_export(folder, undisturbed):
    bootstrap.run(job_config(folder, export=True), build_fakes, NAMES, local=True)
    (clean,) = (folder / "run/clean").iterdir()
    begun = clean / f".{'0' * 32}.partial"
    begun.write_bytes(b"half")

    bootstrap.run(job_config(folder, export=False), build_nothing, NAMES, local=True)
    assert begun.exists()
    bootstrap.run(job_config(folder, export=True), build_nothing, NAMES, local=True)
    assert not begun.exists()


def test_an_exported_run_is_a_valid_input_for_the_next_round(folder):
    summary = bootstrap.run(job_config(folder, export=True), build_fakes, NAMES, local=True)
    (clean,) = (folder / "run/clean").iterdir()

    assert f"3 clean shards with 48 samples and 63 texts in {clean}" in summary
    assert (clean / "_SUCCESS").exists()
    again = job_config(folder, input=[str(clean)], run=str(folder / "run2"), round=1)
    assert "48 samples: 48 scored, 0 failed" in bootstrap.run(again, build_fakes, NAMES, local=True)


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("local", [True, False])
def test_a_clean_shard_of_which_nothing_was_kept_is_a_valid_input_too(folder, local):
    write_shard(folder / "in/00001.tar", [("red", "click here")] * 3)
    bootstrap.run(job_config(folder), build_fakes, NAMES, local=True)
    web = ExportConfig(run=f"{folder}/run", policy=Policy(name="web", mix="web_only"))
    export.run(web)
    clean = load_run(f"{folder}/run").clean(web)

    again = job_config(folder, input=[clean], run=f"{folder}/run2", round=1, export=True)
    summary = bootstrap.run(again, build_fakes, NAMES, local=local)

    run = load_run(again.run)
    assert [(shard.samples > 0, shard.damage) for shard in run.plan()] == [(True, ""), (False, ""), (True, "")]
    assert "3 shards, 0 left out" in summary
    assert "3 clean shards with" in summary
    assert verify(run) == []
    empty = run.plan()[1]
    assert len(read_samples(run, empty)) == len(read_candidates(run, empty)) == 0
    assert summarise(open_run(again.run)).shards == 3
    assert scan(again.model_copy(update={"input": [clean]})).unusable == {}
    assert look(again, lambda _: NAMES)[1].left_out == []


@pytest.mark.usefixtures("ray_cluster")
def test_workers_export_the_same_bytes_as_one_process(tmp_path):
    for way in ("local", "ray"):
        mixed_shards(tmp_path / "in")
        config = job_config(tmp_path, run=str(tmp_path / way), export=True)
        bootstrap.run(config, build_fakes, NAMES, local=way == "local")

    def content(way: str) -> dict[str, bytes]:
        root = tmp_path / way / "clean"
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    assert content("ray") == content("local")
    assert len(content("local")) == 3 * 3 + 3
