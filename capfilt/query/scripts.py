"""The script in which a text is written: exact, and quick enough for every text of a run."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SCRIPTS = {
    "Latin": r"\p{Latin}",
    "Han": r"\p{Han}",
    "Kana": r"[\p{Hiragana}\p{Katakana}]",
    "Hangul": r"\p{Hangul}",
    "Cyrillic": r"\p{Cyrillic}",
    "Arabic": r"\p{Arabic}",
    "Devanagari": r"\p{Devanagari}",
    "Thai": r"\p{Thai}",
    "Greek": r"\p{Greek}",
    "Hebrew": r"\p{Hebrew}",
    "Bengali": r"\p{Bengali}",
    "Tamil": r"\p{Tamil}",
}
"""Name -> regular expression of one letter, in the order of precedence among equals."""

OTHER, NONE = "Other", "None"
_NAMES = [*SCRIPTS, OTHER, NONE]
_LATIN, _OTHER, _NONE = (_NAMES.index(name) for name in ("Latin", OTHER, NONE))


def scripts(texts: pa.Array) -> pa.DictionaryArray:
    """Return for each text the script of most of its letters, OTHER for a rarer one, NONE when it has no letter."""
    codes = np.where(pc.match_substring_regex(texts, "[A-Za-z]").to_numpy(False), _LATIN, _NONE).astype(np.int8)
    foreign = np.flatnonzero(~pc.string_is_ascii(texts).to_numpy(False))
    if len(foreign):
        letters = texts.take(pa.array(foreign))
        counts = np.stack([pc.count_substring_regex(letters, each).to_numpy() for each in SCRIPTS.values()])
        rest = np.where(pc.match_substring_regex(letters, r"\p{L}").to_numpy(False), _OTHER, _NONE)
        codes[foreign] = np.where(counts.any(axis=0), counts.argmax(axis=0), rest)
    return pa.DictionaryArray.from_arrays(codes, _NAMES)
