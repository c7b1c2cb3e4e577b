import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import webdataset
from ledgers import commit, complete, image, input_shard, new_run, record, records_of, synthetic, web

from capfilt import export as exports
from capfilt import storage
from capfilt.config import ExportConfig, Policy, loads
from capfilt.errors import RunError, ShardError
from capfilt.export import export_shard, finish_export, finished_shards, read_stats
from capfilt.ledger.quarantine import release
from capfilt.runs import Selection
from capfilt.shards import open_shard, write_tar
from capfilt.verify.clean import verify_clean

IMAGES = [image(0), image(1, "PNG"), image(2), image(3, "WEBP"), b"no image"]
KEYS = ["00000/a", "../outside", "with.dots.in it", "ключ", "broken"]
CANDIDATES = [
    web(0, 0.75, "a &amp; b"),
    synthetic(0, 0.875, "a caption"),
    synthetic(0, 0.25, "a poor caption", index=1),
    web(1, 0.25, "click here"),
    synthetic(1, 0.5, "only the caption"),
    web(2, 0.25, "buy now"),
    synthetic(2, 0.25, "nothing fits"),
    web(3, 0.5, "web text"),
]


@pytest.fixture
def shard(tmp_path):
    return input_shard(tmp_path, IMAGES, KEYS)


@pytest.fixture
def run(tmp_path, shard):
    run = new_run(tmp_path, [shard])
    records = records_of(shard)
    records[3] = records[3]._replace(metadata='{"uid": [1, null]}')
    records[4] = records[4]._replace(status="decode_error")
    complete(run, shard, records, CANDIDATES)
    return run


@pytest.fixture
def export(run):
    return ExportConfig(run=run.root)


def clean(run, export) -> Path:
    return Path(run.clean(export))


def test_images_come_out_as_they_went_in(run, shard, export):
    export_shard(run, shard, export)

    samples = list(open_shard(f"{clean(run, export)}/00000.tar").read(0, 3))

    assert [sample.image for sample in samples] == [IMAGES[0], IMAGES[1], IMAGES[3]]
    assert [sample.text for sample in samples] == ["a caption", "only the caption", "web text"]


def test_a_clean_shard_is_a_whole_input_shard(run, shard, export):
    export_shard(run, shard, export)

    again = open_shard(f"{clean(run, export)}/00000.tar")

    assert (again.samples, again.damage) == (3, "")
    assert [(s.status, s.text_status, s.url) for s in again.read(0, 3)] == [
        ("ok", "ok", f"http://example.org/{position}") for position in (0, 1, 3)
    ]


def test_the_json_names_all_texts_and_where_they_came_from(run, shard, export):
    export_shard(run, shard, export)

    first, second, third = (
        json.loads(sample.metadata) for sample in open_shard(f"{clean(run, export)}/00000.tar").read(0, 3)
    )

    assert first == {
        "key": "00000000000000",
        "original_key": "00000/a",
        "position": 0,
        "sha256": hashlib.sha256(IMAGES[0]).hexdigest(),
        "url": "http://example.org/0",
        "width": 8,
        "height": 6,
        "format": "JPEG",
        "web_caption": "a & b",
        "syn_caption": "a caption",
        "texts": ["a caption", "a & b"],
        "sources": ["synthetic", "web"],
        "scores": [0.875, 0.75],
        "metadata": "",
    }
    assert (second["web_caption"], second["syn_caption"]) == ("", "only the caption")
    assert json.loads(third["metadata"]) == {"uid": [1, None]}


def test_of_texts_that_fit_equally_well_the_samples_own_comes_first_and_then_the_captions_by_number(tmp_path):
    shard = input_shard(tmp_path, [image(0)])
    run = new_run(tmp_path, [shard])
    texts = [synthetic(0, 0.5, "caption 1", index=1), synthetic(0, 0.5, "caption 0"), web(0, 0.5, "web text")]
    complete(run, shard, records_of(shard), texts)

    export_shard(run, shard, export := ExportConfig(run=run.root))

    (row,) = pq.read_table(clean(run, export) / "00000.parquet").to_pylist()
    assert row["texts"] == ["web text", "caption 0", "caption 1"]
    assert row["syn_caption"] == "caption 0"


def test_a_text_of_people_is_a_samples_own(tmp_path):
    shard = input_shard(tmp_path, [image(0)])
    run = new_run(tmp_path, [shard])
    complete(run, shard, records_of(shard), [web(0)._replace(source="human"), synthetic(0, 0.875)])

    export_shard(run, shard, export := ExportConfig(run=run.root))

    (row,) = pq.read_table(clean(run, export) / "00000.parquet").to_pylist()
    assert row["sources"] == ["synthetic", "human"]
    assert (row["web_caption"], row["syn_caption"]) == ("a web text", "a caption")


def test_no_member_is_named_by_the_input(run, shard, export):
    export_shard(run, shard, export)

    samples = list(open_shard(f"{clean(run, export)}/00000.tar").read(0, 3))

    assert [sample.key for sample in samples] == ["00000000000000", "00000000000001", "00000000000003"]
    assert [json.loads(sample.metadata)["original_key"] for sample in samples] == ["00000/a", "../outside", "ключ"]
    assert '"original_key": "ключ"' in samples[2].metadata  # as it is, without escapes


def test_the_sidecar_has_the_rows_of_the_tar(run, shard, export):
    export_shard(run, shard, export)

    samples = open_shard(f"{clean(run, export)}/00000.tar").read(0, 3)

    rows = pq.read_table(clean(run, export) / "00000.parquet").to_pylist()
    assert rows == [json.loads(sample.metadata) for sample in samples]


def test_the_result_counts_what_was_kept_and_why_the_rest_was_not(run, shard, export):
    exported = export_shard(run, shard, export)

    tar = (clean(run, export) / "00000.tar").read_bytes()
    assert (exported.samples, exported.texts) == (3, 4)
    assert exported.kept == {"synthetic": 2, "web": 2}
    assert exported.rejected == {"low_itm": 4}
    assert (exported.bytes, exported.sha256) == (len(tar), hashlib.sha256(tar).hexdigest())
    assert json.loads((clean(run, export) / "00000_stats.json").read_text())["samples"] == 3


def test_samples_without_a_text_are_kept_when_asked_for(run, shard, export):
    export = export.model_copy(update={"keep_empty": True})

    exported = export_shard(run, shard, export)

    samples = list(open_shard(f"{clean(run, export)}/00000.tar").read(0, 4))
    assert (exported.samples, exported.texts) == (4, 4)
    assert [sample.text for sample in samples] == ["a caption", "only the caption", "", "web text"]


def test_a_shard_of_which_nothing_is_kept_is_exported_too(run, shard):
    export = ExportConfig(run=run.root, policy=Policy(web_itm=1.0, synthetic_itm=1.0))

    exported = export_shard(run, shard, export)

    assert (exported.samples, exported.texts) == (0, 0)
    assert open_shard(f"{clean(run, export)}/00000.tar").samples == 0
    assert pq.read_table(clean(run, export) / "00000.parquet").num_rows == 0


def test_two_exports_give_the_same_bytes(tmp_path, run, shard, export):
    def content():
        return {path.name: path.read_bytes() for path in clean(run, export).iterdir()}

    export_shard(run, shard, export)
    finish_export(run, [shard], export)
    first = content()
    for path in clean(run, export).iterdir():
        path.unlink()
    export_shard(run, shard, export)
    finish_export(run, [shard], export)

    assert content() == first


def test_a_finished_shard_is_left_as_it_is(run, shard, export):
    first = export_shard(run, shard, export)
    tar = clean(run, export) / "00000.tar"
    before = tar.stat().st_mtime_ns
    Path(shard.url).unlink()

    assert export_shard(run, shard, export) == first
    assert tar.stat().st_mtime_ns == before


def test_an_export_that_died_before_its_marker_is_done_again(run, shard, export):
    first = export_shard(run, shard, export)
    (clean(run, export) / "00000_stats.json").unlink()
    (clean(run, export) / "00000.tar").write_bytes(b"half")
    policy = clean(run, export) / "policy.yaml"
    before = policy.stat().st_mtime_ns

    assert export_shard(run, shard, export) == first
    assert open_shard(f"{clean(run, export)}/00000.tar").samples == 3
    assert policy.stat().st_mtime_ns == before  # stores limit how often a file may change


@pytest.mark.parametrize("ending", [".tar", ".parquet"])
def test_a_shard_that_lost_a_file_is_exported_again(run, shard, export, ending):
    first = export_shard(run, shard, export)
    path = clean(run, export) / f"00000{ending}"
    data = path.read_bytes()
    path.unlink()

    assert finished_shards(run.clean(export)) == set()
    assert export_shard(run, shard, export) == first
    assert path.read_bytes() == data


def test_another_image_at_a_position_stops_the_export(tmp_path, run, shard, export):
    """One byte of an image differs, and no name, size or offset."""
    path = Path(shard.url)
    path.write_bytes(path.read_bytes().replace(IMAGES[0], IMAGES[0][:-3] + b"x" + IMAGES[0][-2:]))

    with pytest.raises(ShardError, match=r"00000\.tar: 00000/a: is not the image that was scored"):
        export_shard(run, shard, export)

    assert finished_shards(run.clean(export)) == set()
    assert not (clean(run, export) / "00000.tar").exists()


def test_an_input_of_other_members_stops_the_export(tmp_path, run, shard, export):
    input_shard(tmp_path, IMAGES[::-1], KEYS)

    with pytest.raises(ShardError, match=r"00000\.tar: has changed since it was planned"):
        export_shard(run, shard, export)


def test_a_shard_that_is_not_complete_cannot_be_exported(tmp_path):
    shard = input_shard(tmp_path, [image(0)])
    run = new_run(tmp_path, [shard])
    commit(run, shard, [0, 1], [record(0)], [])

    with pytest.raises(RunError, match="its ledger is not complete"):
        export_shard(run, shard, ExportConfig(run=run.root))


@pytest.mark.parametrize("step", ["clean_content", "write_tar", "parquet_bytes"])  # the last behind the tar
@pytest.mark.parametrize("anew", [False, True])
def test_a_shard_that_is_released_while_it_is_exported_is_not_finished(run, shard, export, monkeypatch, step, anew):
    def released(*arguments):
        monkeypatch.undo()
        release(run, shard)
        if anew:
            complete(run, shard, records_of(shard), CANDIDATES[:2])
        return getattr(exports, step)(*arguments)

    monkeypatch.setattr(exports, step, released)
    with pytest.raises(RunError, match=r"00000\.tar: its bootstrap was begun anew during the export; .* export again"):
        export_shard(run, shard, export)

    assert finished_shards(run.clean(export)) == set()
    if anew:
        assert export_shard(run, shard, export).texts == 2


def test_what_goes_wrong_because_a_shard_is_released_is_told_as_that(run, shard, export, monkeypatch):
    def released(*arguments):
        release(run, shard)
        raise FileNotFoundError("a table is gone")

    monkeypatch.setattr(exports, "clean_content", released)
    with pytest.raises(RunError, match="its bootstrap was begun anew during the export"):
        export_shard(run, shard, export)


def test_a_success_that_counts_a_shard_released_behind_its_last_file_is_taken_back(run, shard, export, monkeypatch):
    publish = storage.publish

    def released(path, data):
        if path.endswith("_stats.json"):
            monkeypatch.undo()
            release(run, shard)
            publish(path, data)
            finish_export(run, [shard], export)  # of another driver, which finds all files of the shard
        else:
            publish(path, data)

    monkeypatch.setattr(exports.storage, "publish", released)
    with pytest.raises(RunError, match="export again"):
        export_shard(run, shard, export)

    assert not (clean(run, export) / "_SUCCESS").exists()
    assert finished_shards(run.clean(export)) == set()


def test_what_another_export_wrote_of_a_shard_done_anew_stays(run, shard, export, monkeypatch):
    def released(*arguments):
        monkeypatch.undo()
        release(run, shard)
        complete(run, shard, records_of(shard), CANDIDATES[:2])
        export_shard(run, shard, export)
        return write_tar(*arguments)

    monkeypatch.setattr(exports, "write_tar", released)
    with pytest.raises(RunError, match="export again"):
        export_shard(run, shard, export)

    assert list(verify_clean(run, [shard], {shard.id}))[:1] == [
        f"{run.clean(export)}/manifest.parquet: is missing, so the export is not finished; export again"
    ]


def test_an_export_whose_shard_is_released_while_it_ends_is_no_success(run, shard, export, monkeypatch):
    def released(*arguments):
        monkeypatch.undo()
        release(run, shard)
        return exports.parquet_bytes(*arguments)

    export_shard(run, shard, export)
    monkeypatch.setattr(exports, "parquet_bytes", released)
    with pytest.raises(RunError, match=r"1 of 1 shards are not exported .*; export again"):
        finish_export(run, [shard], export)

    assert not (clean(run, export) / "_SUCCESS").exists()


def test_the_manifest_lists_all_shards(run, shard, export):
    exported = export_shard(run, shard, export)

    assert finish_export(run, [shard], export) == [exported]

    assert pq.read_table(clean(run, export) / "manifest.parquet").to_pylist() == [
        {"shard": "00000", "samples": 3, "texts": 4, "bytes": exported.bytes, "sha256": exported.sha256}
    ]
    assert (clean(run, export) / "_SUCCESS").exists()


def test_a_clean_shard_without_its_marker_is_told(run, shard, export):
    with pytest.raises(RunError, match=r"00000_stats\.json: is missing; export again$"):
        read_stats(run.clean(export), shard.id)


def test_an_export_of_no_shard_has_its_policy_and_an_empty_manifest(run, export):
    assert finish_export(run, [], export) == []

    assert loads(Selection, (clean(run, export) / "policy.yaml").read_text(), "policy.yaml") == Selection.of(export)
    manifest = (clean(run, export) / "manifest.parquet").read_bytes()
    assert pq.read_table(clean(run, export) / "manifest.parquet").num_rows == 0
    assert (clean(run, export) / "_SUCCESS").read_text() == f"{hashlib.sha256(manifest).hexdigest()}\n"


def test_an_export_with_a_missing_shard_is_no_success(run, shard, export):
    export_shard(run, shard, export)

    with pytest.raises(RunError, match=r"1 of 2 shards are not exported \(in/00001\.tar\)"):
        finish_export(run, [shard, replace(shard, id="00001", url="in/00001.tar")], export)
    others = [replace(shard, id=f"{n:05d}", url=f"in/{n:05d}.tar") for n in range(1, 13)]
    with pytest.raises(RunError, match=r"12 of 12 shards are not exported \((in/\d+\.tar(, )?){10}\); export again"):
        finish_export(run, others, export)

    assert not (clean(run, export) / "_SUCCESS").exists()


def test_webdataset_reads_a_clean_shard(run, shard, export):
    export_shard(run, shard, export)

    urls = f"{clean(run, export)}/00000.tar"
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("pil").to_tuple("jpg", "txt", "json"))

    assert [(picture.size, text, body["texts"][0]) for picture, text, body in samples] == [
        ((8, 6), text, text) for text in ("a caption", "only the caption", "web text")
    ]


@pytest.mark.parametrize("keep_empty", [False, True])
def test_hugging_face_datasets_read_the_tar_and_the_sidecar(tmp_path, monkeypatch, run, shard, export, keep_empty):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", f"{tmp_path}/hub")
    import datasets  # here, since it reads its environment when it is imported

    export = export.model_copy(update={"keep_empty": keep_empty})
    export_shard(run, shard, export)
    stem = f"{clean(run, export)}/00000"

    def load(kind, path):
        return datasets.load_dataset(kind, data_files=path, split="train", cache_dir=f"{tmp_path}/cache")

    tar, sidecar = load("webdataset", f"{stem}.tar"), load("parquet", f"{stem}.parquet")

    assert [row["jpg"].size for row in tar] == [(8, 6)] * len(tar)
    assert tar[0]["txt"] == "a caption"
    assert [row["json"]["web_caption"] for row in tar] == [row["web_caption"] for row in sidecar]
    assert sidecar["texts"][0] == ["a caption", "a & b"]
