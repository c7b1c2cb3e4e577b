"""What no checkpoint gives a model is drawn from the seed; what is given may lie on an object store."""

from pathlib import Path

import pytest
import torch
from fsspec import filesystem
from models import start_settings

from capfilt.config.initial import InitialWeights
from capfilt.errors import CheckpointError
from capfilt.med.initial import start


def test_nothing_given_is_all_random_from_the_seed(tmp_path):
    settings = start_settings(tmp_path)
    one, same, other = (start(settings, InitialWeights(), seed).model.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["vision.vit.patch_embed.proj.weight"], other["vision.vit.patch_embed.proj.weight"])


def test_a_vocabulary_may_lie_on_an_object_store(tmp_path):
    settings = start_settings(tmp_path)
    filesystem("memory").put(settings.vocabulary, f"{tmp_path}/vocab.txt")
    remote = settings.model_copy(update={"vocabulary": f"memory:/{tmp_path}/vocab.txt"})
    here, there = (start(each, InitialWeights(), 0) for each in (settings, remote))
    assert here.tokenizer.vocabulary == there.tokenizer.vocabulary


@pytest.mark.parametrize("key", ["model.vocabulary", "initial.vision", "initial.text"])
def test_what_is_not_on_the_store_is_named_with_its_key(tmp_path, key):
    place, settings, initial = f"memory:/{tmp_path}/none", start_settings(tmp_path), InitialWeights()
    if key == "model.vocabulary":
        settings = settings.model_copy(update={"vocabulary": place})
    else:
        initial = InitialWeights(**{key.removeprefix("initial."): place})
    with pytest.raises(CheckpointError, match=f"^{key}: nothing is at {place}; "):
        start(settings, initial, 0)


def test_what_does_not_fit_is_named_by_its_url_and_not_by_where_it_was_fetched_to(tmp_path):
    settings, place = start_settings(tmp_path), f"memory:/{tmp_path}/bert"
    words = Path(settings.vocabulary).read_bytes() + b"more\n"
    filesystem("memory").pipe({f"{place}/config.json": b'{"model_type": "bert"}', f"{place}/vocab.txt": words})
    with pytest.raises(CheckpointError, match=f"^{place}: its words are .*; set model.vocabulary: {place}/vocab.txt$"):
        start(settings, InitialWeights(text=f"{place}/"), 0)
