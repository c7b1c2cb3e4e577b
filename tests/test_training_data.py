"""Every sample once an epoch, in an order that any step can be entered at, and nothing left out without a count."""

from collections import Counter
from itertools import chain
from pathlib import Path

import pytest
import torch
from pairs import open_pairs, png, sample, schedule, with_texts, write_shard

from capfilt.config import ImageLimits
from capfilt.errors import ConfigError, ShardError
from capfilt.images import decode, resize
from capfilt.training.data import Batch, Draw, Pairs, batches

FIVE = ["red dog", "red cat", "blue dog", "blue cat", "two dogs"]


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two shards of ten samples each."""
    torch.set_num_threads(1)
    for shard in range(2):
        write_shard(tmp_path / "set", map(sample, range(10 * shard, 10 * shard + 10)), f"{shard:05d}.tar")
    return tmp_path / "set"


def run(pairs: Pairs, start: int = 0, seed: int = 0, workers: int = 0, **changes: object) -> list[Batch]:
    return list(batches(pairs, schedule(**{"steps": 10, **changes}), seed, start, workers))


def seen(pairs: Pairs, some: list[Batch]) -> list[list[int]]:
    """Return the numbers of the samples of each batch, known by their pixels."""
    known = {pairs[Draw(i, 0)][0].numpy().tobytes(): i for i in range(len(pairs))}
    assert len(known) == len(pairs)
    return [[known[image.numpy().tobytes()] for image in batch.pixels] for batch in some]


def same(some: list[Batch], others: list[Batch]) -> bool:
    return len(some) == len(others) and all(
        torch.equal(a, b) for x, y in zip(some, others, strict=True) for a, b in zip(x, y, strict=True)
    )


class TestOrder:
    def test_every_sample_comes_once_an_epoch(self, folder):
        pairs = open_pairs(folder)
        numbers = seen(pairs, run(pairs))
        epochs = [list(chain(*numbers[:5])), list(chain(*numbers[5:]))]
        assert [sorted(epoch) for epoch in epochs] == [list(range(20))] * 2
        assert epochs[0] != epochs[1]
        assert list(range(20)) not in epochs

    def test_odd_samples_wait_for_another_epoch_and_none_comes_twice_in_one(self, folder):
        pairs = open_pairs(folder)
        numbers = seen(pairs, run(pairs, batch_size=6, steps=30))
        for first in range(0, 30, 3):
            assert len({*numbers[first], *numbers[first + 1], *numbers[first + 2]}) == 18
        assert {i for batch in numbers for i in batch} == set(range(20))

    @pytest.mark.parametrize("start", [1, 4, 5, 9, 10])
    def test_a_run_that_starts_later_gets_the_batches_that_were_left(self, folder, start):
        pairs = open_pairs(folder, texts_per_image=2)
        assert same(run(pairs, start), run(pairs)[start:])

    def test_it_is_a_function_of_the_seed(self, folder):
        pairs = open_pairs(folder)
        assert same(run(pairs, seed=7), run(pairs, seed=7))
        assert seen(pairs, run(pairs, seed=7)) != seen(pairs, run(pairs, seed=8))

    def test_neither_memory_nor_workers_nor_torchs_own_chance_change_it(self, folder):
        expected = run(open_pairs(folder))
        torch.manual_seed(1234)
        assert same(run(open_pairs(folder, in_memory=True)), expected)
        assert same(run(open_pairs(folder), workers=2), expected)

    def test_a_batch_larger_than_the_set_is_refused(self, folder):
        with pytest.raises(ConfigError, match=r"schedule\.batch_size: 21, but there are 20 samples; lower it"):
            run(open_pairs(folder), batch_size=21)


class TestBatch:
    def test_texts_stand_with_their_image(self, folder):
        pairs = open_pairs(folder)
        for batch, numbers in zip(run(pairs), seen(pairs, run(pairs)), strict=True):
            assert batch.pixels.shape == (4, 3, 16, 16)
            assert batch.pixels.dtype == torch.uint8
            for ids, keep, number in zip(batch.ids, batch.keep, numbers, strict=True):
                text = sample(number)["txt"].decode()
                assert ids[keep].tolist() == pairs.tokens.encode(text, pairs.tokens.cls, 30)

    def test_pixels_are_the_image_resized(self, folder):
        pairs = open_pairs(folder)
        expected = resize(decode(sample(13)["png"], ImageLimits()).pixels, 16)
        assert torch.equal(pairs[Draw(13, 0)][0], expected)

    def test_several_texts_of_an_image_are_different_ones(self, tmp_path):
        write_shard(tmp_path / "set", [with_texts(i, FIVE) for i in range(4)])
        pairs = open_pairs(tmp_path / "set", texts_per_image=3)
        (batch,) = run(pairs, steps=1)
        texts = [pairs.tokens.decode(row) for row in batch.ids[:, 1:].tolist()]
        assert batch.ids.shape[0] == 12
        for image in range(4):
            assert len({*texts[3 * image : 3 * image + 3]} & set(FIVE)) == 3

    def test_a_sample_with_too_few_texts_gives_each_equally_often(self, tmp_path):
        write_shard(tmp_path / "set", [with_texts(0, FIVE[:2])])
        pairs = open_pairs(tmp_path / "set", texts_per_image=6)
        texts = Counter(pairs.tokens.decode(ids[1:]) for ids in pairs[Draw(0, 1)][1])
        assert texts == {FIVE[0]: 3, FIVE[1]: 3}

    def test_over_the_steps_each_text_is_drawn_as_often(self, tmp_path):
        write_shard(tmp_path / "set", [with_texts(i, FIVE) for i in range(4)])
        pairs = open_pairs(tmp_path / "set", in_memory=True)
        count = Counter(pairs.tokens.decode(row) for b in run(pairs, steps=500) for row in b.ids[:, 1:].tolist())
        assert set(count) == set(FIVE)
        assert all(abs(n - 400) < 5 * (2000 * 0.2 * 0.8) ** 0.5 for n in count.values())

    def test_texts_are_cleaned_and_cut_to_words_and_tokens(self, tmp_path):
        long = {**sample(0), "txt": b"<b>A Red</b> dog!\n on the grass, two cats"}
        write_shard(tmp_path / "set", [long])
        for limits, text in (({}, "a red dog on the grass , two cats"), ({"max_words": 3}, "a red dog")):
            pairs = open_pairs(tmp_path / "set", **limits)
            assert pairs[Draw(0, 0)][1] == [pairs.tokens.encode(text, pairs.tokens.cls, 30)]
        pairs = open_pairs(tmp_path / "set", max_tokens=5)
        assert pairs[Draw(0, 0)][1] == [[pairs.tokens.cls, *pairs.tokens.pieces("a red dog"), pairs.tokens.end]]


class TestTexts:
    @pytest.mark.parametrize(
        ("files", "texts"),
        [
            ({"txt": b"dog"}, ["dog"]),
            ({"txt": b"dog", "json": b'{"texts": ["cat", "two cats"]}'}, ["cat", "two cats"]),
            ({"txt": b"dog", "json": b'{"captions": ["cat", "two cats"]}'}, ["cat", "two cats"]),
            ({"txt": b"dog", "json": b'{"texts": ["cat"], "captions": ["grass"]}'}, ["cat"]),
            ({"json": b'{"texts": ["cat"]}'}, ["cat"]),
            ({"txt": b"dog", "json": b'{"texts": []}'}, ["dog"]),
            ({"txt": b"dog", "json": b'{"texts": "cat"}'}, ["dog"]),
            ({"txt": b"dog", "json": b'{"texts": ["cat", 3]}'}, ["dog"]),
            ({"txt": b"dog", "json": b"[1]"}, ["dog"]),
            ({"txt": b"dog", "json": b'{"texts": ["ca'}, ["dog"]),
            ({"txt": b"dog", "json": b""}, ["dog"]),
            ({"txt": b"dog", "json": b'{"texts": ["cat", "", "..."]}'}, ["cat"]),
        ],
    )
    def test_the_list_of_the_json_comes_before_the_text_file(self, tmp_path, files, texts):
        write_shard(tmp_path / "set", [{"png": png(), **files}])
        pairs = open_pairs(tmp_path / "set", texts_per_image=len(texts))
        assert sorted(pairs.tokens.decode(ids[1:]) for ids in pairs[Draw(0, 0)][1]) == texts


class TestLeftOut:
    BAD = (
        {"png": png()},
        {"png": png(), "txt": b" \n"},
        {"png": png(), "txt": b"..."},
        {"txt": b"dog"},
        {"png": b"no image", "txt": b"dog"},
        {"png": png()[:60], "txt": b"dog"},
    )

    def test_samples_without_text_or_image_are_counted_by_reason(self, tmp_path):
        write_shard(tmp_path / "set", [sample(0), *self.BAD, sample(1)])
        pairs = open_pairs(tmp_path / "set", in_memory=True)
        assert len(pairs) == 2
        assert sum(pairs.left_out.values()) == len(self.BAD)
        assert pairs.left_out["no_text"] == 3
        assert seen(pairs, run(pairs, steps=1, batch_size=2))[0] in ([0, 1], [1, 0])

    def test_a_set_of_nothing_usable_is_refused_with_the_counts(self, tmp_path):
        write_shard(tmp_path / "set", self.BAD[:3])
        with pytest.raises(ConfigError, match=r"data\.shards: no usable sample in .*set; left out: 3 no_text"):
            open_pairs(tmp_path / "set")

    def test_an_unreadable_image_met_in_training_is_named_with_the_remedy(self, tmp_path):
        write_shard(tmp_path / "set", [sample(0), self.BAD[4]])
        with pytest.raises(ShardError, match=r"00000\.tar: 0001: .*set data\.in_memory: true"):
            run(open_pairs(tmp_path / "set"), batch_size=2)

    def test_a_damaged_shard_is_refused_or_read_as_far_as_it_is_whole(self, tmp_path):
        path = write_shard(tmp_path / "set", map(sample, range(6)))
        path.write_bytes(path.read_bytes()[:6000])
        with pytest.raises(ShardError, match=r"00000\.tar: .*; fetch it again or set data\.damage: keep-readable"):
            open_pairs(tmp_path / "set")
        assert 0 < len(open_pairs(tmp_path / "set", damage="keep-readable")) < 6
