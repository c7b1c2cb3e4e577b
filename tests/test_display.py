import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capfilt.display import counted, four_places, has_credentials, in_bytes, one_line, redact, reveal, shorten


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("s3://KEY:SECRET@bucket/a.tar", "s3://***@bucket/a.tar"),
        ("https://me:p@ss/w@host:80/a.tar", "https://***@host:80/a.tar"),
        (
            "https://b.s3.amazonaws.com/a.tar?X-Amz-Credential=AKIA%2F1&X-Amz-Expires=60&x-amz-signature=abc",
            "https://b.s3.amazonaws.com/a.tar?X-Amz-Credential=***&X-Amz-Expires=***&x-amz-signature=***",
        ),
        (
            "https://acc.blob.core.windows.net/c/a.tar?sv=2024&sig=s%3D",
            "https://acc.blob.core.windows.net/c/a.tar?sv=2024&sig=***",
        ),
        (
            "https://storage.googleapis.com/b/a?X-Goog-Signature=1f",
            "https://storage.googleapis.com/b/a?X-Goog-Signature=***",
        ),
        ("https://host/a.tar?page=2&token=abc#x", "https://host/a.tar?page=2&token=***"),
        ("https://host/a.tar?%74oken=abc", "https://host/a.tar?%74oken=***"),
        ("abfs://c@acc.dfs.core.windows.net/a?access_token=x", "abfs://c@acc.dfs.core.windows.net/a?access_token=***"),
    ],
)
def test_credentials_of_a_url_are_known_and_hidden(url, seen):
    assert has_credentials(url)
    assert redact(url) == seen
    assert redact(f"cannot read '{url}', nor {url} again") == f"cannot read '{seen}', nor {seen} again"
    assert not has_credentials(seen.replace("=***", "").replace("***@", ""))


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/a.tar",
        "s3://bucket/a@b:c/d.tar",
        "s3://bucket/a.tar?versionId=3",
        "https://host:8080/a@b.tar?page=2",
        "sftp://user@host/a.tar",
        "abfs://container@account.dfs.core.windows.net/a.tar",
        "/data/me:you@home/key=1.tar",
        "{000..127}.tar?token=x",
    ],
)
def test_other_urls_are_shown_as_they_are(url):
    assert not has_credentials(url)
    assert redact(url).startswith(url.partition("?token")[0])


def test_what_would_move_a_cursor_or_turn_a_line_is_shown_as_an_escape():
    assert (
        redact("a\x1b[2J\rb\u202ec\u200bd\u2028e\ud800f\x9bg") == "a\\x1b[2J\\rb\\u202ec\\u200bd\\u2028e\\ud800f\\x9bg"
    )
    assert redact("two lines\n\tof \N{DOG FACE}") == "two lines\n\tof 🐶"


def test_a_text_is_shown_on_one_line_of_bounded_length():
    assert one_line("a\n\tdog \x1b[31m\u202e") == "a dog [31m"
    assert one_line("x" * 61) == "x" * 57 + "..."
    assert one_line("x" * 60) == "x" * 60


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
    assert reveal(text) == shown


@pytest.mark.parametrize("text", ["naïve 犬", "שלום", "نم\u200cخ", "👩\u200d💻"])
def test_texts_of_all_languages_stay_as_they_are(text):
    assert reveal(text) == text


def test_marks_piled_on_a_letter_are_cut():
    assert reveal("e" + "\u0301" * 50 + "x\u0301") == "e\u0301\u0301\u0301x\u0301"


def test_a_limit_is_kept_before_characters_are_revealed():
    assert (reveal("0123456789", 10), reveal("01234567890", 10)) == ("0123456789", "012345678…")
    assert reveal("\n" * 4, 3) == "↵↵…"


@given(st.text())
def test_nothing_of_any_text_can_act(text):
    assert not {c for c in reveal(text) if unicodedata.category(c) in ("Cc", "Cf", "Co", "Cs")} - {"\u200c", "\u200d"}


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


@pytest.mark.parametrize(
    ("score", "told"), [(0.49999, "0.4999"), (0.5, "0.5000"), (0.28499999, "0.2850"), (1.0, "1.0000"), (None, "none")]
)
def test_a_score_is_cut_to_four_places(score, told):
    assert four_places(score) == told


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (0, "0 tokens"),
        (1, "1 token"),
        (2, "2 tokens"),
        (2880, "2,880 tokens"),
        (2_880_000, "2,880,000 tokens"),
        (1.0, "1 token"),
        (0.5, "0.5 tokens"),
    ],
)
def test_a_number_of_things_is_told_for_people(count, told):
    assert counted(count, "token") == told


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (123e6, "123 MB"), (2.5e9, "2.5 GB"), (4e15, "4,000.0 TB")],
)
def test_bytes_are_told_in_steps_of_1000(count, text):
    assert in_bytes(count) == text
