"""In which script a text is written: exact, and quick enough for every text of a run."""

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


def scripts(texts: pa.Array) -> pa.Array:
    """Return for each text the script of most of its letters, OTHER for a rarer one, NONE when it has no letter."""
    names = np.where(pc.match_substring_regex(texts, "[A-Za-z]").to_numpy(False), "Latin", NONE).astype(object)
    foreign = np.flatnonzero(~pc.string_is_ascii(texts).to_numpy(False))
    if len(foreign):
        letters = texts.take(pa.array(foreign))
        counts = np.stack([pc.count_substring_regex(letters, each).to_numpy() for each in SCRIPTS.values()])
        found = np.array(list(SCRIPTS), object)[counts.argmax(axis=0)]
        rest = np.where(pc.match_substring_regex(letters, r"\p{L}").to_numpy(False), OTHER, NONE)
        names[foreign] = np.where(counts.any(axis=0), found, rest)
    return pa.array(names, pa.string())
