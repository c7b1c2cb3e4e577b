import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capfilt.visible import shorten, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a plain text", "a plain text"),
        ("\x1b[31mred\x07", "<U+001B>[31mred<U+0007>"),
        ("one\ntwo\tthree\r", "one↵two⇥three<U+000D>"),
        ("\x7f\x9b31m", "<U+007F><U+009B>31m"),
        ("abc\u202egnp.exe", "abc<U+202E>gnp.exe"),
        ("\u2066a\u2069 \u200fb \u00ad\ufeff", "<U+2066>a<U+2069> <U+200F>b <U+00AD><U+FEFF>"),
        ("a\u2028b\u2029c", "a<U+2028>b<U+2029>c"),
        ("a\U000e0041b", "a<U+E0041>b"),
    ],
)
def test_what_acts_or_hides_is_shown(text, shown):
    assert visible(text) == shown


@pytest.mark.parametrize("text", ["naïve 犬", "שלום", "نم\u200cخ", "👩\u200d💻"])
def test_texts_of_all_languages_stay_as_they_are(text):
    assert visible(text) == text


def test_marks_piled_on_a_letter_are_cut():
    assert visible("e" + "\u0301" * 50 + "x\u0301") == "e\u0301\u0301\u0301x\u0301"


@given(st.text())
def test_nothing_of_any_text_can_act(text):
    assert not {c for c in visible(text) if unicodedata.category(c) in ("Cc", "Cf", "Co", "Cs")} - {"\u200c", "\u200d"}


@pytest.mark.parametrize(
    ("text", "head", "rest"),
    [
        ("a dog", "a dog", ""),
        ("0123456789", "0123456789", ""),
        ("a dog on grass", "a dog on", " grass"),
        ("0123456789ab", "0123456789", "ab"),
    ],
)
def test_a_long_text_is_cut_between_words_and_nothing_is_lost(text, head, rest):
    assert shorten(text, 10) == (head, rest)
    assert "".join(shorten(text, 10)) == text
