import json

import pytest

from capfilt.records import Sample
from capfilt.shards.samples import MAX_NESTING, MAX_TEXT, describe, read_metadata, read_text, to_json

BARE = Sample(0, "0", b"x", "")


@pytest.mark.parametrize(
    ("data", "text", "status"),
    [
        (b"a dog\n", "a dog\n", "ok"),
        (None, "", "missing"),
        (b"", "", "empty"),
        (b" \n\t", "", "empty"),
        (b"\xef\xbb\xbfa dog", "\ufeffa dog", "ok"),
        ("é" * MAX_TEXT, "é", "ok"),
        ("🐶" * (MAX_TEXT + 1), "🐶", "cut"),
        ("€" * 200_000, "€", "cut"),
        (b"caf\xe9", "", "not_utf8"),
        (b"a dog\xf0\x9f\x90", "", "not_utf8"),
        (b"a dog" * 9000 + b"\xff", "a dog", "cut"),
    ],
)
def test_a_text_is_kept_as_it_came_or_its_status_says_why_not(data, text, status):
    data = data.encode() if isinstance(data, str) else data
    found = read_text(data)

    assert found.status == status
    if status == "ok" and data.isascii():
        assert found.text == text
    assert len(found.text) <= MAX_TEXT
    assert found.text.replace(text, "") == ""


def test_a_text_that_is_not_utf8_shows_its_bytes():
    assert read_text(b"caf\xe9 in Paris").error == "text is not UTF-8 at byte 3: b'caf\\xe9 in Paris'"


def test_the_caption_of_the_json_counts_only_without_a_text():
    metadata = b'{"caption": "a cat", "url": "http://x/1.jpg"}'

    assert describe(BARE, b"a dog", metadata).text == "a dog"
    assert describe(BARE, b"", metadata).text_status == "empty"
    alone = describe(BARE, None, metadata)
    assert (alone.text, alone.text_status, alone.url, alone.metadata) == (
        "a cat",
        "ok",
        "http://x/1.jpg",
        metadata.decode(),
    )


@pytest.mark.parametrize(
    ("captions", "text", "status"),
    [(b'["a cat", "a dog"]', "a cat", "ok"), (b'[""]', "", "empty"), (b"[]", "", "missing"), (b"[3]", "", "missing")],
)
def test_the_first_of_several_captions_in_the_json_is_the_text(captions, text, status):
    sample = describe(BARE, None, b'{"caption": %s}' % captions)

    assert (sample.text, sample.text_status) == (text, status)
    assert sample.metadata == f'{{"caption": {captions.decode()}}}'


@pytest.mark.parametrize(
    ("metadata", "text", "status"),
    [
        (b'{"captions": ["a cat", "two cats"]}', "a cat", "ok"),
        (b'{"caption": null, "captions": "a cat"}', "a cat", "ok"),
        (b'{"caption": "", "captions": ["a cat"]}', "", "empty"),
        (b'["a cat", "two cats"]', "a cat", "ok"),
        (b"[]", "", "missing"),
        (b'[{"caption": "a cat"}]', "", "missing"),
    ],
)
def test_captions_of_the_json_stand_in_for_the_text(metadata, text, status):
    sample = describe(BARE, None, metadata)

    assert (sample.text, sample.text_status, sample.metadata) == (text, status, metadata.decode())


@pytest.mark.parametrize("data", [b'{"caption": "unfinished', b"\xff\xfe", b"[" * 100_000, b"1" * 5000, b""])
def test_what_is_no_json_is_dropped_with_a_word(data):
    found = read_metadata(data)

    assert (found.raw, found.caption, found.url) == ("", None, "")
    assert found.error.startswith("metadata is not JSON and is dropped")


def test_metadata_over_the_limit_is_dropped_with_a_word():
    assert read_metadata(b'"' + b"x" * (4 << 20) + b'"').error == "metadata has over 4194304 bytes and is dropped"


def test_the_nan_that_pandas_writes_becomes_null():
    found = read_metadata(b'{"caption": NaN, "width": 3}')

    assert (found.raw, found.caption, found.error) == ('{"caption": null, "width": 3}', None, "")


def test_a_number_that_no_float_can_hold_becomes_null():
    """Written out again it would be Infinity, which is no JSON."""
    found = read_metadata(b'{"caption": NaN, "big": 1e999, "small": -1e999, "ok": 1e3}')

    assert found.raw == '{"caption": null, "big": null, "small": null, "ok": 1000.0}'
    assert read_metadata(b'{"big": 1e999}').raw == '{"big": null}'


def test_of_a_key_that_stands_twice_the_last_counts():
    assert read_metadata(b'{"caption": "a", "caption": "b"}').caption == "b"


def test_lone_surrogates_never_reach_a_table():
    sample = describe(BARE, None, b'{"caption": "a \\ud800 dog", "url": "http://x/\\ud800"}')

    assert (sample.text, sample.text_status) == ("", "not_utf8")
    assert "".join([sample.text, sample.url, sample.error]).encode()


@pytest.mark.parametrize("metadata", [b"[1, 2]", b'"text"', b"null", b'{"caption": 3, "url": ["x"]}'])
def test_json_of_any_other_shape_is_carried_on(metadata):
    sample = describe(BARE, None, metadata)

    assert (sample.metadata, sample.text_status, sample.url, sample.error) == (metadata.decode(), "missing", "", "")


def test_a_row_becomes_json_without_what_it_does_not_have():
    assert json.loads(to_json({"a": 1, "b": None, "c": b"bytes", "d": ["x"]})) == {"a": 1, "d": ["x"]}


@pytest.mark.parametrize("calls", [0, 100])
def test_how_deep_json_may_be_nested_does_not_hang_on_the_stack(calls):
    def further_down(calls: int, levels: int) -> str:
        text = '{"x": ' + "[" * (levels - 1) + "]" * (levels - 1) + "}"
        return further_down(calls - 1, levels) if calls else read_metadata(text.encode()).error

    assert further_down(calls, MAX_NESTING) == ""
    assert "is not JSON and is dropped (nested over 800 levels deep)" in further_down(calls, MAX_NESTING + 1)
    assert read_metadata(b'{"x": [' + b"[]," * 1000 + b"[]]}").error == ""  # many, but side by side
