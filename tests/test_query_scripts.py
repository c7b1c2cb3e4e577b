import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capfilt.query.scripts import SCRIPTS, scripts


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("a dog", "Latin"),
        ("Ein Hund läuft über die Straße", "Latin"),
        ("ÉÈ", "Latin"),
        ("собака Rex", "Cyrillic"),
        ("iPhone 12 для детей", "Cyrillic"),
        ("一只猫坐在沙发上", "Han"),
        ("メンズ 財布", "Kana"),
        ("강아지", "Hangul"),
        ("كلب", "Arabic"),
        ("ተሰማ", "Other"),
        ("2034 -- 17", "None"),
        ("★☆ 2034", "None"),
        ("", "None"),
    ],
)
def test_a_text_is_of_the_script_of_most_of_its_letters(text, script):
    assert scripts(pa.array([text])).to_pylist() == [script]


@given(st.lists(st.text(max_size=20), max_size=5))
def test_a_text_has_no_script_exactly_when_it_has_no_letter(texts):
    found = scripts(pa.array(texts, pa.string())).to_pylist()

    for text, script in zip(texts, found, strict=True):
        assert script in {*SCRIPTS, "Other", "None"}
        if all(unicodedata.category(character)[0] not in "LCM" for character in text):
            assert script == "None"
        if any("a" <= character <= "z" for character in text):
            assert script != "None"
