"""The job on a real S3 server, and on one that fails now and then."""

import logging
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs
from fakes import NAMES, build_fakes, job_config, mixed_shards, write_shard
from s3 import FAULTS, Seen, Server
from s3fs import S3FileSystem

from capfilt import retries, storage
from capfilt.config import BootstrapConfig, ExportConfig, Policy
from capfilt.indexing import index_shard, open_planned
from capfilt.retries import may_pass
from capfilt.runs import load_run, start_run
from capfilt.shards import find_shards, open_shard
from capfilt.verify import verify
from pipelines import bootstrap, export

MB = 1 << 20


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short waits, and none of botocore's own, which are seconds."""
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(retries, "LONGEST_WAIT", 0.02)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    S3FileSystem.clear_instance_cache()  # fsspec keeps clients, and a client what it read of the environment
    yield
    S3FileSystem.clear_instance_cache()


@pytest.fixture
def bucket(s3: Server, tmp_path: Path) -> str:
    """The URL of an empty folder of the store."""
    return f"s3://bucket{tmp_path}"


def upload(folder: Path, url: str) -> None:
    for file in folder.iterdir():
        storage.publish(storage.join(url, file.name), file.read_bytes())


def run_and_export(config: BootstrapConfig) -> list[str]:
    """Bootstrap and export under two policies; return what is wrong with the run."""
    bootstrap.run(config, build_fakes, NAMES, local=True)
    export.run(ExportConfig(run=config.run, policy=Policy(name="strict", web_itm=0.9)))
    return verify(load_run(config.run))


def tables(folder: str) -> dict[str, bytes]:
    """Return all files of a folder that hold data, by their paths in it."""
    found = {name: storage.read_bytes(storage.join(folder, name)) for name in storage.list_files(folder)}
    found = {name: data for name, data in found.items() if name.endswith((".parquet", ".tar"))}
    for inner in storage.list_folders(folder):
        found |= {f"{inner}/{name}": data for name, data in tables(storage.join(folder, inner)).items()}
    return found


def results(run: str) -> dict[str, bytes]:
    return {path: data for path, data in tables(run).items() if not path.startswith("plan/")}  # it holds the URLs


def test_a_run_on_a_store_that_fails_ends_in_the_bytes_of_a_local_run(s3, bucket, tmp_path, hasty):
    mixed_shards(tmp_path / "in", shards=2)
    upload(tmp_path / "in", f"{bucket}/in")
    local = job_config(tmp_path, export=True)
    remote = job_config(tmp_path, export=True, input=[f"{bucket}/in"], run=f"{bucket}/run")

    assert run_and_export(local) == []
    with s3.counting() as seen, s3.misbehaving(*FAULTS, rate=0.15):
        problems = run_and_export(remote)

    assert problems == []
    assert set(FAULTS) <= {request.fault for request in seen}
    assert results(remote.run) == results(local.run)
    assert len(results(remote.run)) == 2 * 2 + 2 * (
        2 * 2 + 1
    )  # tables of shards; of two policies tars, tables, manifest


def test_a_store_that_is_away_for_longer_than_its_client_waits_costs_nothing_but_time(
    s3, bucket, hasty, monkeypatch, caplog
):
    left = [10]

    def choose(method: str, path: str) -> str:
        left[0] -= 1
        return "broken" if left[0] >= 0 else ""

    monkeypatch.setattr(s3, "choose", choose)
    storage.publish(f"{bucket}/a", b"content")

    assert storage.read_bytes(f"{bucket}/a") == b"content"

    assert len(caplog.messages) == 10
    assert "injected" in caplog.messages[0]


def test_an_answer_that_is_too_short_and_says_it_is_whole_is_not_taken_for_the_end_of_a_shard(
    s3, bucket, tmp_path, hasty, monkeypatch
):
    """It would make a sound tar look cut."""
    data = Path(write_shard(tmp_path / "00000.tar", [("red", "a red wall")] * 5)).read_bytes()
    storage.publish(f"{bucket}/00000.tar", data)
    tries = iter(["", "short", "short"] + [""] * 100)  # the first is for the kind of the file
    monkeypatch.setattr(s3, "choose", lambda method, path: next(tries) if method == "GET" and "tar" in path else "")

    shard = open_shard(f"{bucket}/00000.tar")

    assert (shard.samples, shard.damage) == (5, "")
    assert next(tries) == ""


@pytest.mark.parametrize("ask", [storage.read_bytes, storage.size, storage.exists])
def test_a_refused_token_is_told_at_once(s3, bucket, ask, caplog):
    with s3.misbehaving("token"), pytest.raises(OSError, match=r"a\.tar") as caught:
        ask(f"{bucket}/a.tar")

    assert not may_pass(caught.value)
    assert not caplog.messages


@pytest.mark.parametrize("ask", [storage.read_bytes, storage.size, lambda path: storage.publish(path, b"x")])
def test_a_store_that_does_not_let_one_is_told_with_what_to_look_at(s3, bucket, ask):
    with s3.misbehaving("forbidden"), pytest.raises(PermissionError, match="; check the keys of the store") as caught:
        ask(f"{bucket}/a.tar")

    assert caught.value.filename == f"{bucket}/a.tar"


def test_a_request_that_was_damaged_on_its_way_is_made_again(s3, bucket, hasty, caplog):
    with s3.misbehaving("garbled", rate=0.9, only="PUT"):
        storage.publish(f"{bucket}/a.tar", b"x")

    assert storage.read_bytes(f"{bucket}/a.tar") == b"x"
    assert "retrying in" in caplog.messages[0]


def test_requests_that_are_damaged_again_and_again_may_pass_later(s3, bucket, monkeypatch):
    monkeypatch.setattr(retries, "PATIENCE", 0.0)
    with s3.misbehaving("garbled", only="PUT"), pytest.raises(OSError, match=r"a\.tar") as caught:
        storage.publish(f"{bucket}/a.tar", b"x")

    assert may_pass(pickle.loads(pickle.dumps(caught.value)))


def test_an_upload_that_breaks_off_leaves_nothing_under_its_name(s3, bucket, hasty, monkeypatch):
    monkeypatch.setattr(retries, "PATIENCE", 0.0)
    with s3.misbehaving("broken", only="PUT"), pytest.raises(OSError, match=r"injected.*a\.tar"):
        storage.publish(f"{bucket}/a.tar", b"content")

    assert storage.list_files(bucket) == []


def test_a_large_file_is_sent_in_parts_and_appears_with_the_last_step(s3, bucket, monkeypatch):
    """At any of its requests the file is not there yet, and it is whole afterwards."""
    monkeypatch.setattr(s3fs.core, "calculate_chunksize", lambda size, chunksize=None: 5 * MB)
    seen_before: list[bool] = []
    content = bytes(range(256)) * (12 * MB // 256)

    def choose(method: str, path: str) -> str:
        if "uploadId" in path or "uploads" in path:
            objects = s3.ask_directly("GET", f"/bucket?list-type=2&prefix={bucket.removeprefix('s3://bucket/')}")
            seen_before.append(b"large.tar" in objects)
        return "lost" if method == "POST" and "uploadId" in path and len(seen_before) < 6 else ""

    with monkeypatch.context() as patch:
        patch.setattr(s3, "choose", choose)
        with storage.staged(f"{bucket}/large.tar") as partial:
            partial.write_bytes(content)

    assert seen_before == [False] * 5 + [True]  # begun, three parts, put together unheard; asked again
    assert storage.read_bytes(f"{bucket}/large.tar") == content


def test_listings_go_on_over_pages(s3, bucket):
    for n in range(5):
        storage.publish(f"{bucket}/in/{n:05d}.tar", b"x")

    with s3.small_pages(2), s3.counting() as seen:
        assert storage.list_files(f"{bucket}/in") == [f"{n:05d}.tar" for n in range(5)]
        assert find_shards([f"{bucket}/in/*.tar"]) == [f"{bucket}/in/{n:05d}.tar" for n in range(5)]

    assert len([request for request in seen if "list-type=2" in request.path]) >= 6


@pytest.mark.parametrize("given", ["a/", "a/0.tar", "a/*.tar", "a/{0..3}.tar"])
def test_a_bucket_that_does_not_exist_is_no_empty_folder(s3, given):
    for ask in (storage.list_entries, load_run, lambda url: find_shards([url])):
        with pytest.raises(FileNotFoundError, match=r"bucket does not exist: 's3://missing"):
            ask(f"s3://missing/{given}")


def test_a_listing_is_never_remembered(s3, bucket):
    for n in range(3):
        storage.publish(f"{bucket}/in/{n:05d}.tar", b"x")
        assert len(find_shards([f"{bucket}/in/*.tar"])) == n + 1


def ranges(seen: list[Seen]) -> tuple[int, int]:
    """Return how many requests for data there were, and how many bytes came."""
    gets = [request for request in seen if request.method == "GET" and request.range]
    return len(gets), sum(request.bytes for request in gets)


def test_reading_a_unit_of_large_images_leaves_the_rest_of_the_shard(s3, bucket, tmp_path):
    """The headers are found by jumps, and of the images only those of the unit come."""
    data = Path(write_shard(tmp_path / "00000.tar", [(b"\xff\xd8" + bytes(3 * MB), "text")] * 10)).read_bytes()
    storage.publish(f"{bucket}/00000.tar", data)

    with s3.counting() as seen:
        shard = open_shard(f"{bucket}/00000.tar")
    requests, bytes_read = ranges(seen)
    assert shard.samples == 10
    assert requests <= 13
    assert bytes_read < MB

    with s3.counting() as seen:
        assert [sample.position for sample in shard.read(4, 6)] == [4, 5]
    assert ranges(seen)[1] < 7 * MB


def test_a_shard_of_small_images_is_read_through_in_few_requests(s3, bucket, tmp_path):
    data = Path(write_shard(tmp_path / "00000.tar", [(b"\xff\xd8" + bytes(100_000), "text")] * 100)).read_bytes()
    storage.publish(f"{bucket}/00000.tar", data)

    with s3.counting() as seen:
        shard = open_shard(f"{bucket}/00000.tar")
        assert len(list(shard.read(0, 100))) == 100

    requests, bytes_read = ranges(seen)
    assert requests <= 2 * 9 + 1  # from 64 KiB to 8 MiB, and two more; once for the headers, once for the images
    assert bytes_read <= 2.01 * len(data)


def test_a_unit_of_a_planned_shard_reads_its_own_bytes_alone(s3, bucket, tmp_path):
    data = Path(write_shard(tmp_path / "00000.tar", [(b"\xff\xd8" + bytes(100_000), "text")] * 100)).read_bytes()
    storage.publish(f"{bucket}/00000.tar", data)
    run = start_run(job_config(tmp_path, run=f"{bucket}/run"), NAMES)
    shard = index_shard(run, "00000", f"{bucket}/00000.tar")

    with s3.counting() as seen:
        samples = list(open_planned(run, shard).read(40, 60))

    assert [sample.position for sample in samples] == list(range(40, 60))
    assert ranges(seen)[1] < 1.5 * len(data) * 20 / 100


def test_a_store_tells_another_file_of_the_same_size(s3, bucket, tmp_path):
    for red in (0, 1):
        write_shard(tmp_path / f"{red}.tar", [(b"\xff\xd8" + bytes([red]) * 1000, "text")] * 3)
    storage.publish(f"{bucket}/0.tar", (tmp_path / "0.tar").read_bytes())
    before = storage.version(f"{bucket}/0.tar")
    storage.publish(f"{bucket}/0.tar", (tmp_path / "1.tar").read_bytes())

    assert storage.version(f"{bucket}/0.tar") != before


def test_a_shard_that_is_replaced_while_it_is_read_is_an_error(s3, bucket, tmp_path):
    data = Path(write_shard(tmp_path / "00000.tar", [(b"\xff\xd8" + bytes(200_000), "text")] * 3)).read_bytes()
    storage.publish(f"{bucket}/00000.tar", data)
    samples = open_shard(f"{bucket}/00000.tar").read(0, 3)
    next(samples)

    storage.publish(f"{bucket}/00000.tar", data[:-1] + b"x")

    with pytest.raises(OSError, match=r"no longer exists.*00000\.tar"):
        list(samples)


def test_nobody_sees_the_keys(s3, bucket, tmp_path, hasty, caplog):
    caplog.set_level(logging.DEBUG, "capfilt")
    mixed_shards(tmp_path / "in", shards=1)
    upload(tmp_path / "in", f"{bucket}/in")
    with s3.misbehaving("broken", "short", rate=0.05):
        bootstrap.run(job_config(tmp_path, input=[f"{bucket}/in"], run=f"{bucket}/run"), build_fakes, NAMES, local=True)

    run = "".join(map(repr, everything(f"{bucket}/run")))
    assert "open-sesame" not in run + caplog.text


def everything(folder: str) -> list[bytes]:
    files = [storage.read_bytes(storage.join(folder, name)) for name in storage.list_files(folder)]
    return files + [data for inner in storage.list_folders(folder) for data in everything(storage.join(folder, inner))]
