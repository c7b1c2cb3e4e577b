"""The same batches for any number of shares, loader processes and restarts, and nothing left out without a count."""

import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import pytest
import torch
from ledgers import exported_run
from models import small_checkpoint
from pairs import open_set, pixels, png, sample, with_texts, write_shard
from tasks import write_images, write_json

from capfilt.config import ExportConfig
from capfilt.config.data import DataSettings
from capfilt.config.training import Schedule
from capfilt.errors import ConfigError, ShardError
from capfilt.images import decode, resize
from capfilt.shards import open_shard
from capfilt.training.data import Batch, TrainingData, open_data

PAGE = Path(__file__).parent.parent / "docs" / "training.md"
AUGMENTED = {"augmentation": {"min_scale": 0.2, "flip": True, "operations": 2}}
BAD = (
    {"png": png()},
    {"png": png(), "txt": b" \n"},
    {"txt": b"dog"},
    {"png": b"no image", "txt": b"dog"},
    {"png": png()[:60], "txt": b"dog"},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Twenty samples in shards of ten, seven and three."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("data") / "set"
    for name, lo, hi in (("0.tar", 0, 10), ("1.tar", 10, 17), ("2.tar", 17, 20)):
        write_shard(folder, [with_texts(i, ["red dog", "two cats", "blue cat"]) for i in range(lo, hi)], name)
    return folder


def run(data: TrainingData, start: int = 0, stop: int = 12, shares: int = 1) -> list[Batch]:
    """Return the global batch of each step, put together from all shares."""
    steps = zip(*(data.batches(range(start, stop), share, shares) for share in range(shares)), strict=True)
    return [joined(data, shared) for shared in steps]


def joined(data: TrainingData, shares: Iterable[Batch]) -> Batch:
    shares = list(shares)
    rows = [ids[keep].tolist() for batch in shares for ids, keep in zip(batch.ids, batch.keep, strict=True)]
    pixels, images = (torch.cat([getattr(batch, name) for batch in shares]) for name in ("pixels", "images"))
    return Batch(pixels, *data.prepare.tokenizer.batch(rows), images)


def same(some: list[Batch], others: list[Batch]) -> bool:
    return len(some) == len(others) and all(
        torch.equal(a, b) for x, y in zip(some, others, strict=True) for a, b in zip(x, y, strict=True)
    )


def images(some: list[Batch]) -> list[int]:
    return list(chain.from_iterable(batch.images.tolist() for batch in some))


class TestOrder:
    @pytest.mark.parametrize("workers", [0, 1, 2, 3])
    def test_shares_and_processes_do_not_change_a_batch(self, folder, workers):
        """Order, text draws and augmentation; ten steps of four go twice through the set."""
        changes = {"block_size": 4, **AUGMENTED}
        expected = run(open_set(folder, texts=2, **changes), stop=10)
        for shares in (1, 2, 4) if workers < 2 else (2,):
            assert same(run(open_set(folder, texts=2, workers=workers, **changes), stop=10, shares=shares), expected)

    def test_a_run_that_starts_at_any_step_gets_the_batches_that_were_left(self, folder):
        data = open_set(folder, batch_size=6, texts=2, block_size=3, **AUGMENTED)
        whole = run(data)
        for start in range(13):
            assert same(run(open_set(folder, batch_size=6, texts=2, block_size=3, **AUGMENTED), start), whole[start:])
        assert same(run(open_set(folder, batch_size=6, texts=2, workers=2, block_size=3, **AUGMENTED), 5), whole[5:])

    def test_every_image_comes_once_an_epoch(self, folder):
        found = images(run(open_set(folder, batch_size=6), stop=20))
        for epoch in range(6):
            assert sorted(found[20 * epoch : 20 * epoch + 20]) == list(range(20))

    def test_neither_memory_nor_torchs_own_chance_changes_it(self, folder):
        for changes in ({}, AUGMENTED):
            expected, data = run(open_set(folder, **changes)), open_set(folder, in_memory=True, **changes)
            torch.manual_seed(1234)
            before = torch.get_rng_state()
            assert same(run(data), expected)
            assert torch.equal(torch.get_rng_state(), before)

    def test_it_is_a_function_of_the_seed(self, folder):
        found = [run(open_set(folder, seed=seed)) for seed in (7, 7, 8)]
        assert same(found[0], found[1])
        assert images(found[0]) != images(found[2])

    def test_shards_change_places_only_where_the_run_was_told_other_ones(self, folder, tmp_path):
        file = str(tmp_path / "shards.parquet")
        given = DataSettings(shards=[str(folder)]), Schedule(steps=1, batch_size=4), small_checkpoint(tmp_path), 3
        assert same(run(open_data(*given, file)), run(open_data(*given, file)))

    def test_processes_end_with_the_steps_or_when_nobody_listens(self, folder):
        batches = open_set(folder, workers=2).batches(range(1000))
        next(batches)
        del batches
        assert len(list(open_set(folder, workers=2).batches(range(2)))) == 2


class TestBatch:
    def test_pixels_texts_and_number_of_an_image_stand_together(self, tmp_path):
        for shard in range(2):
            write_shard(tmp_path / "set", map(sample, range(10 * shard, 10 * shard + 10)), f"{shard}.tar")
        data = open_set(tmp_path / "set")
        for batch in run(data):
            assert (batch.pixels.dtype, batch.ids.dtype, batch.keep.dtype) == (torch.uint8, torch.int64, torch.bool)
            for image, ids, keep, number in zip(*batch[:3], batch.images.tolist(), strict=True):
                assert torch.equal(image, pixels(number, 32))
                text = sample(number)["txt"].decode()
                assert ids[keep].tolist() == data.prepare.tokenizer.encode(text, data.prepare.tokenizer.cls, 30)

    def test_the_texts_of_an_image_stand_next_to_each_other(self, tmp_path):
        write_shard(tmp_path / "set", [with_texts(i, [f"{word} dog", f"{word} cat"]) for i, word in enumerate("bcde")])
        data = open_set(tmp_path / "set", texts=2)
        for batch in run(data):
            texts = [data.prepare.tokenizer.decode(row) for row in batch.ids[:, 1:].tolist()]
            for place, number in enumerate(batch.images.tolist()):
                assert {*texts[2 * place : 2 * place + 2]} == {f"{'bcde'[number]} dog", f"{'bcde'[number]} cat"}

    def test_one_text_is_drawn_anew_each_time(self, folder):
        data = open_set(folder, in_memory=True)
        texts = Counter(
            data.prepare.tokenizer.decode(row) for b in run(data, stop=300) for row in b.ids[:, 1:].tolist()
        )
        assert set(texts) == {"red dog", "two cats", "blue cat"}
        assert all(abs(count - 400) < 5 * (1200 * 2 / 9) ** 0.5 for count in texts.values())

    def test_places_and_seeds_draw_each_for_itself(self, folder):
        """All samples have the same texts, in the same order."""
        found = [run(open_set(folder, batch_size=20, seed=seed), stop=1)[0].ids.tolist() for seed in (7, 8)]
        assert all(len({tuple(ids) for ids in batch}) == 3 for batch in found)
        assert found[0] != found[1]

    def test_a_view_is_drawn_anew_each_time(self, folder):
        data = open_set(folder, batch_size=20, **AUGMENTED)
        views = {batch.pixels[batch.images.tolist().index(7)].numpy().tobytes() for batch in run(data, stop=8)}
        assert len(views) >= 5

    def test_an_image_of_two_sources_has_one_number(self, folder):
        sources = [{"shards": [str(folder)], "weight": 1}, {"shards": [f"{folder}/1.tar"], "weight": 1}]
        data = open_set(folder, 8, sources=sources)
        found = run(data, stop=7)
        assert {i for batch in found for i in batch.images[1::2].tolist()} == set(range(10, 17))
        assert {i for batch in found for i in batch.images[::2].tolist()} == set(range(20))

    def test_an_epoch_is_as_long_as_its_samples(self, folder):
        assert (len(open_set(folder)), open_set(folder).epoch_steps, open_set(folder, 6).epoch_steps) == (20, 5, 3)
        thirds = [{"shards": [str(folder)], "parts": 3}]
        assert open_set(folder, 3, sources=thirds).epoch_steps == 2

    def test_texts_longer_than_the_model_takes_are_refused(self, folder):
        with pytest.raises(ConfigError, match=r"data\.max_tokens: 41, the model takes 40; lower it"):
            open_set(folder, max_tokens=41)


class TestLeftOut:
    @pytest.mark.parametrize("changes", [{}, {"workers": 2}, {"in_memory": True}, {"block_size": 2}], ids=str)
    def test_what_cannot_be_used_is_counted_and_its_place_taken_by_the_next(self, tmp_path, changes, caplog):
        write_shard(tmp_path / "set", [sample(0), *BAD, sample(1), sample(2)])
        data = open_set(tmp_path / "set", **changes)
        found = images(run(data, stop=4))
        assert data.left_out == {"no_text": 2, "no_image": 1, "not_an_image": 1, "truncated": 1}
        assert len(data) == 3
        assert Counter(found) == {0: 2, 6: 2 * 6, 7: 2}
        assert caplog.text.count("it is left out; others that are no_text are only counted") == 1
        assert "00000.tar: 0003: " in caplog.text

    def test_in_memory_all_of_it_is_known_before_the_first_step(self, tmp_path):
        write_shard(tmp_path / "set", [sample(0), *BAD, sample(1), sample(2)])
        data = open_set(tmp_path / "set", in_memory=True)
        assert data.left_out == {"no_text": 2, "no_image": 1, "not_an_image": 1, "truncated": 1}
        assert len(data) == 3

    def test_a_run_that_was_stopped_counts_each_once(self, tmp_path):
        """Some are met before the stop alone, some after it, some both times."""
        write_shard(tmp_path / "set", [sample(n) if n % 3 else BAD[n % 2] for n in range(30)])
        whole, before, after, alone = (open_set(tmp_path / "set", 4, block_size=2) for _ in range(4))
        for data, steps in ((whole, (0, 12)), (before, (0, 6)), (alone, (6, 12))):
            run(data, *steps)
        after.load_state_dict(before.state_dict())
        assert after.left_out == before.left_out
        run(after, 6, 12)
        assert after.left_out == whole.left_out
        assert len(after) == len(whole)
        assert max(before.left_out["no_text"], alone.left_out["no_text"]) < whole.left_out["no_text"]
        assert before.left_out["no_text"] + alone.left_out["no_text"] > whole.left_out["no_text"]

    @pytest.mark.parametrize("workers", [0, 2])
    def test_a_shard_of_nothing_usable_is_told_when_it_is_met(self, tmp_path, workers):
        write_shard(tmp_path / "set", BAD[:2])
        with pytest.raises(
            ShardError, match=r"^/.*00000\.tar: no sample .*: 2 no_text \(first: /.*: .*\); leave the shard out$"
        ):
            run(open_set(tmp_path / "set", 2, workers=workers))

    def test_a_shard_that_changes_while_it_is_read_is_told(self, tmp_path):
        path = write_shard(tmp_path / "set", map(sample, range(8)))
        batches = open_set(tmp_path / "set", 1, block_size=2).batches(range(8))
        next(batches)
        path.write_bytes(path.read_bytes()[:-512])
        with pytest.raises(ShardError, match=r"00000\.tar: has \d+ bytes, had"):
            list(batches)


class TestFormats:
    def test_clean_shards_of_an_export(self, tmp_path):
        finished, _ = exported_run(tmp_path)
        data = open_set(tmp_path, 2, texts=2, shards=[finished.clean(ExportConfig(run=finished.root))])
        kept = {"a web text", "a caption"}
        for batch in run(data, stop=5):
            assert {data.prepare.tokenizer.decode(row) for row in batch.ids[:, 1:].tolist()} <= {
                data.prepare.tokenizer.decode(data.prepare.tokenizer.pieces(text)) for text in kept
            }
        assert sum(data.catalogue.samples) == len({*images(run(data, stop=5))}) == len(data) > 2

    @pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
    def test_a_list_made_of_karpathys_file_as_the_documentation_says(self, tmp_path):
        """One sample for each image of the training split, with all its captions."""
        entries = [
            {"split": split, "filepath": "a", "filename": f"{n}.png", "sentences": [{"raw": "dog"}, {"raw": "cat"}]}
            for n, split in enumerate(["train", "val", "restval", "test"])
        ]
        folder = tmp_path / "coco"
        write_images(folder, *(f"a/{entry['filename']}" for entry in entries))
        write_json(folder / "dataset_coco.json", {"images": entries})
        command = PAGE.read_text().partition("$ jq")[2].partition("\n```")[0]
        subprocess.run(f"jq{command}", shell=True, cwd=folder, check=True)
        data = open_set(folder, 2, texts=2)
        (batch,) = run(data, stop=1)
        assert sorted(batch.images.tolist()) == [0, 1]
        words = [data.prepare.tokenizer.decode(row[1:]) for row in batch.ids.tolist()]
        assert [sorted(words[:2]), sorted(words[2:])] == [["cat", "dog"]] * 2

    def test_shards_of_img2dataset(self, shared, tmp_path):
        path = shared / "data" / "peers" / "torchtitan-cc12m-train-0000.tar"
        samples = list(open_shard(str(path)).read(0, 32))
        settings = DataSettings(shards=[str(path)])
        data = open_data(settings, Schedule(steps=4, batch_size=8), small_checkpoint(tmp_path), 0)
        for batch in run(data, stop=4):
            for image, number in zip(batch.pixels, batch.images.tolist(), strict=True):
                assert torch.equal(image, resize(decode(samples[number].image, settings.images).pixels, 32))
        assert sorted(images(run(data, stop=4))) == list(range(32))
