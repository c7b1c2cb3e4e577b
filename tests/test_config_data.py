"""What is trained on, in short or as sources with weights, and what chance does to images."""

import pytest

from capfilt.config import loads
from capfilt.config.data import Augmentation, DataSettings, ShardSet
from capfilt.errors import ConfigError


def settings(text: str) -> DataSettings:
    return loads(DataSettings, text, "job.yaml")


def test_shards_are_short_for_one_source():
    assert settings("shards: [a, b]").mixture() == [ShardSet(shards=["a", "b"])]
    sources = "sources: [{shards: [a], weight: 2}, {shards: [b], weight: 1, parts: 5}]"
    assert settings(sources).mixture() == [ShardSet(shards=["a"], weight=2), ShardSet(shards=["b"], weight=1, parts=5)]


@pytest.mark.parametrize(
    ("text", "found"),
    [("workers: 2", "neither"), ("{shards: [a], sources: [{shards: [b]}]}", "both"), ("sources: []", "neither")],
)
def test_one_of_both_is_given(text, found):
    with pytest.raises(ConfigError, match=rf"job\.yaml: .*give either shards or sources \(found {found}\)"):
        settings(text)


def test_weights_are_given_to_all_or_none():
    with pytest.raises(ConfigError, match=r"give every source a weight, or none.*\(found none in sources\.1\)"):
        settings("sources: [{shards: [a], weight: 2}, {shards: [b]}]")


@pytest.mark.parametrize("text", ["weight: 0", "weight: -1", "parts: 0", "shards: []", "wieght: 1"])
def test_a_source_that_cannot_be_is_refused_with_its_number(text):
    with pytest.raises(ConfigError, match=rf"job\.yaml: sources\.0\.{text.partition(':')[0]}: "):
        settings(f"sources: [{{shards: [a], {text}}}]" if "shards" not in text else f"sources: [{{{text}}}]")


def test_without_being_asked_for_nothing_changes_images():
    assert settings("shards: [a]").augmentation == Augmentation(min_scale=None, flip=False, operations=0)
