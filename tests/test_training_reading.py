"""Samples made ready, read a block at a time, and those that cannot be used replaced by the next that can."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from models import write_vocabulary
from pairs import open_set, pixels, png, sample, write_shard

from capfilt.config.data import Augmentation, DataSettings
from capfilt.errors import ConfigError, ShardError
from capfilt.med.tokenizer import Tokenizer
from capfilt.records import Sample, Shard
from capfilt.training.augment import Views
from capfilt.training.order import DRAWS, Place, chance
from capfilt.training.reading import (
    Blocks,
    OpenShards,
    Preparation,
    Unusable,
    Usable,
    draw_texts,
    remember,
    texts_of,
    usable,
)


def preparation(folder: Path, **changes: object) -> Preparation:
    settings = DataSettings.model_validate({"shards": ["x"], **changes})
    return Preparation(settings, Tokenizer(write_vocabulary(folder)), Views(16, settings.augmentation))


def texts(prepare: Preparation, **values: object) -> list[str]:
    found = prepare(Sample(**{"position": 0, "key": "k", "image": png(), "text": "", **values}), "a.tar")
    assert isinstance(found, Usable)
    return [prepare.tokenizer.decode(ids[1:]) for ids in found.texts]


def test_json_that_is_too_deep_where_the_stack_is_deep_leaves_the_own_text():
    """What the reader of a shard could take in may be too much for whoever calls from further down."""
    deep = Sample(0, "k", b"", text="dog", metadata="[" * 600 + "]" * 600)

    def further_down(calls: int) -> list[str]:
        return further_down(calls - 1) if calls else texts_of(deep)

    assert further_down(0) == further_down(600) == ["dog"]


class TestPreparation:
    @pytest.mark.parametrize(
        ("text", "metadata", "expected"),
        [
            ("dog", "", ["dog"]),
            ("dog", '{"texts": ["cat", "two cats"]}', ["cat", "two cats"]),
            ("dog", '{"captions": ["cat", "two cats"]}', ["cat", "two cats"]),
            ("dog", '{"texts": ["cat"], "captions": ["grass"]}', ["cat"]),
            ("", '{"texts": ["cat"]}', ["cat"]),
            ("dog", '{"texts": []}', ["dog"]),
            ("dog", '{"captions": []}', ["dog"]),
            ("dog", '{"texts": "cat"}', ["dog"]),
            ("dog", '{"texts": ["cat", 3]}', ["dog"]),
            ("dog", "[1]", ["dog"]),
            ("dog", '{"texts": ["ca', ["dog"]),
            ("dog", '{"texts": ["cat", "", "..."]}', ["cat"]),
        ],
    )
    def test_the_list_of_the_json_comes_before_the_text(self, tmp_path, text, metadata, expected):
        assert texts(preparation(tmp_path), text=text, metadata=metadata) == expected

    def test_texts_are_cleaned_and_cut_to_words_and_tokens(self, tmp_path):
        long = "<b>A Red</b> dog!\n on the grass: two cats"
        assert texts(preparation(tmp_path), text=long) == ["a red dog on the grass two cats"]
        assert texts(preparation(tmp_path, max_words=3), text=long) == ["a red dog"]
        prepare = preparation(tmp_path, max_tokens=5)
        found = prepare(Sample(0, "k", png(), long), "a.tar")
        assert found.texts == [[prepare.tokenizer.cls, *prepare.tokenizer.pieces("a red dog"), prepare.tokenizer.end]]

    def test_an_image_is_kept_as_its_only_view_or_as_it_was_decoded(self, tmp_path):
        one = Sample(0, "k", sample(13)["png"], "dog")
        assert torch.equal(preparation(tmp_path)(one, "a.tar").pixels, pixels(13, 16))
        cropped = preparation(tmp_path, augmentation=Augmentation(min_scale=0.2), images={})(one, "a.tar").pixels
        assert (cropped.shape, cropped.dtype) == ((3, 16, 16), torch.uint8)

    @pytest.mark.parametrize(
        ("values", "reason", "what"),
        [
            ({}, "no_text", "a.tar: k: no text has a word, its text is ok"),
            ({"text": "..."}, "no_text", "a.tar: k: no text"),
            ({"text": "dog", "image": b"no image"}, "not_an_image", "a.tar: k: is not an image"),
            ({"text": "dog", "image": png()[:60]}, "truncated", "a.tar: k: cannot be decoded"),
            ({"text": "dog", "image": b"", "status": "no_image", "error": "gone"}, "no_image", "a.tar: k: gone"),
        ],
    )
    def test_what_cannot_be_used_has_its_reason(self, tmp_path, values, reason, what):
        bad = Sample(**{"position": 0, "key": "k", "image": png(), "text": "", **values})
        found = preparation(tmp_path)(bad, "a.tar")
        assert isinstance(found, Unusable)
        assert found.reason == reason
        assert found.what.startswith(what)


class TestBlocks:
    @pytest.fixture
    def data(self, tmp_path):
        for shard in range(2):
            write_shard(tmp_path / "set", map(sample, range(10 * shard, 10 * shard + 10)), f"{shard:05d}.tar")
        return open_set(tmp_path / "set")

    def test_a_block_is_read_once_and_the_shard_is_opened_once_for_all_lanes(self, data, monkeypatch):
        shards, reads = OpenShards(data.catalogue), []
        lanes = [Blocks(shards, data.prepare, size=4) for _ in range(2)]
        opened = shards[0]
        monkeypatch.setattr(opened, "read", lambda lo, hi, real=opened.read: (reads.append((lo, hi)), real(lo, hi))[1])
        for position in (5, 7, 4, 6, 9, 8):
            assert torch.equal(lanes[0](Place(0, position)).pixels, pixels(position, 32))
        assert torch.equal(lanes[1](Place(0, 1)).pixels, pixels(1, 32))
        assert reads == [(4, 8), (8, 10), (0, 4)]
        assert shards[0] is opened

    def test_one_block_is_in_memory_and_a_shard_closes_when_no_lane_is_in_it(self, data):
        shards = OpenShards(data.catalogue)
        lane = Blocks(shards, data.prepare, size=4)
        for position in range(10):
            lane(Place(0, position))
            assert len(lane._samples) <= 4
        assert list(shards._open) == [0]
        assert torch.equal(lane(Place(1, 9)).pixels, pixels(19, 32))
        assert list(shards._open) == [1]

    def test_a_process_holds_a_block_and_a_shard_for_each_lane_however_many_shards_there_are(self, tmp_path):
        for shard in range(40):
            write_shard(tmp_path / "set", map(sample, range(6)), f"{shard:05d}.tar")
        data = open_set(tmp_path / "set", batch_size=4)
        shards = OpenShards(data.catalogue)
        lanes = [Blocks(shards, data.prepare, size=3) for _ in range(4)]
        places = [data.mixture.samples(place, 0) for place in range(4)]
        for _ in range(90):  # more than an epoch
            for lane, at in zip(lanes, places, strict=True):
                lane(next(at))
            assert sum(len(lane._samples) for lane in lanes) <= 4 * 3
            assert len(shards._open) <= 4

    def test_memory_holds_what_blocks_give(self, data):
        blocks, found = Blocks(OpenShards(data.catalogue), data.prepare, 3), remember(data.catalogue, data.prepare)
        assert list(found) == [Place(shard, position) for shard in range(2) for position in range(10)]
        for place, kept in found.items():
            assert torch.equal(blocks(place).pixels, kept.pixels)
            assert blocks(place).texts == kept.texts

    def test_a_set_of_nothing_usable_is_refused_with_the_counts(self, tmp_path):
        write_shard(tmp_path / "set", [{"png": png()}, {"png": png()}, {"txt": b"dog"}])
        with pytest.raises(
            ConfigError, match=r"no usable sample in .*: 2 no_text, 1 no_image \(first: /.*00000\.tar: "
        ):
            open_set(tmp_path / "set", 1, in_memory=True)


class TestReplacement:
    SHARD = Shard("s", "s.tar", 0, "", 6)
    GOOD = Usable(torch.zeros(3, 1, 1, dtype=torch.uint8), [[1]])

    def find(self, position: int, good: set[int]) -> tuple[int, dict[int, str]]:
        def look(place: Place) -> Usable | Unusable:
            return self.GOOD if place.position in good else Unusable("bad", "it is bad")

        at, _, unusable = usable(look, Place(0, position), self.SHARD)
        return at.position, {place.position: each.reason for place, each in unusable.items()}

    def test_a_usable_sample_stands_for_itself(self):
        assert self.find(2, {2, 3}) == (2, {})

    def test_the_next_usable_one_stands_for_others_and_the_first_comes_behind_the_last(self):
        assert self.find(2, {0, 4}) == (4, {2: "bad", 3: "bad"})
        assert self.find(5, {0, 4}) == (0, {5: "bad"})

    def test_a_shard_without_any_is_refused_with_the_reasons(self):
        with pytest.raises(ShardError, match=r"s\.tar: no sample .*: 6 bad \(first: it is bad\); leave the shard out"):
            self.find(3, set())


class TestTexts:
    def test_several_texts_of_an_image_are_different_ones(self):
        ids = [[i] for i in range(5)]
        for number in range(20):
            assert len({*map(tuple, draw_texts(ids, 3, chance(0, DRAWS, number)))}) == 3

    def test_too_few_are_given_equally_often(self):
        assert Counter(map(tuple, draw_texts([[1], [2]], 6, chance(0, DRAWS, 0)))) == {(1,): 3, (2,): 3}

    def test_each_is_drawn_as_often(self):
        count = Counter(draw_texts([[i] for i in range(5)], 1, chance(0, DRAWS, n))[0][0] for n in range(2000))
        assert all(abs(count[i] - 400) < 5 * (2000 * 0.2 * 0.8) ** 0.5 for i in range(5))
