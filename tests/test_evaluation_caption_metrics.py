import math
import shutil

import pytest

from capfilt.errors import ConfigError
from capfilt.evaluation import caption_metrics as module
from capfilt.evaluation.caption_metrics import caption_metrics, simple_words

pytest.importorskip("pycocoevalcap", reason="the extra evaluation is not installed")

REFERENCES = [
    ["A dog runs on the grass.", "A brown dog, running."],
    ["Two cats sleep on a sofa.", "The cats are sleeping"],
    ["A man rides a red bike down the street", "Someone's bike"],
]
CAPTIONS = ["a dog runs on the grass", "two dogs sleep", "a man rides a bike down the street"]


@pytest.fixture
def without_java(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)


def test_words_without_java_are_lower_case_and_free_of_punctuation():
    assert simple_words([["A dog's T-shirt, (red)!"], ["", "don't_stop 3 naïve"]]) == {
        0: ["a dog 's t shirt red"],
        1: ["", "don 't stop 3 naïve"],
    }


def test_own_captions_are_perfect_and_foreign_ones_worth_nothing(without_java):
    perfect = caption_metrics(REFERENCES, [texts[0] for texts in REFERENCES])
    assert [perfect[name] for name in ("bleu1", "bleu4", "rouge_l")] == pytest.approx([100, 100, 100])
    nothing = caption_metrics(REFERENCES, ["x"] * 3)
    assert [nothing[name] for name in ("bleu1", "rouge_l", "cider")] == pytest.approx([0, 0, 0])
    some = caption_metrics(REFERENCES, CAPTIONS)
    assert 0 < some["cider"] < perfect["cider"]
    assert 0 < some["bleu4"] < some["bleu1"] < 100


def test_bleu_1_is_the_written_out_share(without_java):
    # 6 of 6, 2 of 3 and 8 of 8 words are in a reference; 17 words stand against 6 + 4 + 9 of the references that are
    # closest in length, so the penalty for being short is exp(1 - 19 / 17).
    expected = 100 * (16 / 17) * math.exp(1 - 19 / 17)
    assert caption_metrics(REFERENCES, CAPTIONS)["bleu1"] == pytest.approx(expected)


def test_without_java_the_result_says_what_is_missing_and_which_words_were_used(without_java):
    figures = caption_metrics(REFERENCES, CAPTIONS)
    assert (figures["meteor"], figures["spice"], figures["tokenizer"]) == (None, None, "simple")
    assert figures["missing"]["meteor"] == "there is no java on the PATH; install a Java runtime"


def test_a_missing_package_is_told_with_its_extra(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"install it with: pip install 'capfilt\[evaluation\]'"):
        module.require_metrics()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="there is no java on the PATH")
def test_with_java_words_are_the_penn_treebanks_and_spice_is_never_fetched():
    figures = caption_metrics(REFERENCES, [CAPTIONS[0], "", CAPTIONS[2]])  # an empty caption keeps its line
    assert figures["tokenizer"] == "ptb"
    assert figures["meteor"] > 20
    assert figures["bleu1"] == pytest.approx(100 * math.exp(1 - 19 / 14))
    if figures["spice"] is None:
        assert "Stanford CoreNLP 3.6.0 are not in" in figures["missing"]["spice"]
