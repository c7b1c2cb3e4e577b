import json
from dataclasses import replace

import pytest
from ledgers import SHARD, complete, new_run, record, synthetic, web

from capfilt.query import open_run
from capfilt.stats import describe_texts, texts


def described(tmp_path, candidates, where=None):
    shard = replace(SHARD, samples=50)
    run = new_run(tmp_path, [shard])
    ordered = sorted(candidates, key=lambda candidate: candidate.position)
    complete(run, shard, [record(n) for n in range(50)], ordered)
    with open_run(run.root) as opened:
        return describe_texts(opened, where)


def test_texts_that_differ_in_case_alone_repeat_each_other(tmp_path):
    captions = ["A dog", "a dog", "a cat", "a DOG", "a cat", "a bird"]
    found = described(tmp_path, [synthetic(n, text=text) for n, text in enumerate(captions)])["synthetic"]

    assert (found.texts, found.distinct, found.duplicates) == (6, 3, 0.5)
    assert found.repeated == [("a dog", 3), ("a cat", 2)]


def test_lengths_are_those_of_the_cleaned_texts(tmp_path):
    found = described(tmp_path, [web(0, text="<b>one</b>"), web(1, text=" two  words "), web(2, text="one two three")])

    assert found["web"].words == {"mean": 2.0, "p5": 1.0, "p25": 1.0, "p50": 2.0, "p75": 3.0, "p95": 3.0}


def test_words_and_pairs_are_counted_within_texts_and_without_punctuation(tmp_path):
    found = described(tmp_path, [web(0, text="The dog, the DOG!"), web(1, text="dog"), web(2, text="--")])["web"]

    assert (found.sampled_words, found.vocabulary) == (5, 2)
    assert found.distinct_1 == 2 / 5
    assert found.distinct_2 == 2 / 3  # the dog, dog the, the dog; none reaches from one text into the next


def test_diversity_is_judged_on_about_equally_many_words_of_each_source(tmp_path):
    own = [web(n, text=" ".join(f"word{n}x{i}" for i in range(10))) for n in range(50)]
    written = [synthetic(n, text="a b") for n in range(50)]
    found = described(tmp_path, own + written)

    assert found["synthetic"].sampled_words == 100
    assert 50 <= found["web"].sampled_words <= 150
    assert found["web"].distinct_1 == 1.0


def test_no_more_than_so_many_words_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "MAX_WORDS", 20)

    found = described(tmp_path, [web(n, text="a b") for n in range(50)])["web"]

    assert 10 <= found.sampled_words <= 30
    assert found.texts == 50


def test_a_source_of_empty_texts_has_no_words(tmp_path):
    found = described(tmp_path, [web(0, text=""), synthetic(0, text="a dog")])

    assert (found["web"].sampled_words, found["web"].distinct_1, found["web"].distinct_2) == (0, 0.0, 0.0)
    assert found["synthetic"].sampled_words == 2


def test_a_condition_limits_the_texts(tmp_path):
    found = described(tmp_path, [web(0, text="a dog"), synthetic(0), synthetic(1)], "source = 'web'")

    assert {source: values.texts for source, values in found.items()} == {"web": 1}


def test_a_run_without_texts_has_none_to_describe(tmp_path):
    assert described(tmp_path, []) == {}


def test_the_json_holds_every_figure(tmp_path):
    values = json.loads(json.dumps(described(tmp_path, [web(0, text="a dog"), web(1, text="a dog")])["web"].to_json()))

    assert values["repeated"] == [["a dog", 2]]
    assert (values["duplicates"], values["distinct_2"]) == (0.5, pytest.approx(0.5))
