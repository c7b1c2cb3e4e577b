"""BLEU, METEOR, ROUGE-L, CIDEr and SPICE of captions, by the COCO caption package (pycocoevalcap).

BLEU, ROUGE-L and CIDEr are computed in Python: on the words of the Penn Treebank tokenizer if Java is installed, as in
published results, else on simpler words. METEOR and SPICE need Java. SPICE also needs models, which pycocoevalcap would
download during a run: they are used if present, and never downloaded here.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from capfilt.errors import ConfigError

SPICE_MODELS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
_WORD = re.compile(r"[^\W_]+|'[^\W_]+")  # a word, or what follows an apostrophe, as in the Penn Treebank

Words = dict[int, list[str]]  # number of an image -> captions, words separated by single blanks


def require_metrics() -> Path:
    """Return the folder of pycocoevalcap.

    Raises:
        ConfigError: it is not installed.
    """
    found = find_spec("pycocoevalcap")
    if found is None or not found.submodule_search_locations:
        raise ConfigError("task: captioning needs pycocoevalcap; install it with: pip install 'capfilt[evaluation]'")
    return Path(next(iter(found.submodule_search_locations)))


def caption_metrics(references: Sequence[Sequence[str]], captions: Sequence[str]) -> dict[str, object]:
    """Return the corpus figures of captions, times 100 as in publications.

    CIDEr weights words by their rarity in these references, so it depends on the set and is 0 for a single image.

    Args:
        references: at least one human caption for each image.
        captions: one for each image.

    Returns:
        bleu1 to bleu4, rouge_l, cider, meteor and spice, None with a reason under missing for those that cannot be
        computed here; and the tokenizer, "ptb" or "simple".
    """
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    folder = require_metrics()
    no_java = _why_no_java(folder)
    cut = simple_words if no_java else _penn_treebank
    gold, found = cut(references), cut([[caption] for caption in captions])
    bleu, _ = Bleu(4).compute_score(gold, found, verbose=0)
    figures: dict[str, object] = {f"bleu{n}": 100 * float(share) for n, share in enumerate(bleu, 1)}
    figures["rouge_l"] = 100 * float(Rouge().compute_score(gold, found)[0])
    figures["cider"] = 100 * float(Cider().compute_score(gold, found)[0])
    missing = {}
    for name, problem in (("meteor", no_java), ("spice", no_java or _why_no_spice(folder))):
        try:
            figures[name] = None if problem else 100 * _java_metric(name, gold, found)
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            figures[name], problem = None, f"its Java program failed: {error}"
        if problem:
            missing[name] = problem
    return {**figures, "missing": missing, "tokenizer": "simple" if no_java else "ptb"}


def simple_words(texts: Sequence[Sequence[str]]) -> Words:
    """Return texts as lower-case words without punctuation, which approximates the Penn Treebank tokenizer."""
    return {i: [" ".join(_WORD.findall(text.lower())) for text in group] for i, group in enumerate(texts)}


def _penn_treebank(texts: Sequence[Sequence[str]]) -> Words:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    # The tokenizer works line by line, so each caption must be one line that is not empty.
    lines = {i: [{"caption": " ".join(text.split()) or "."} for text in group] for i, group in enumerate(texts)}
    cut: Words = PTBTokenizer().tokenize(lines)
    return cut


def _java_metric(name: str, gold: Words, found: Words) -> float:
    if name == "meteor":
        from pycocoevalcap.meteor.meteor import Meteor

        return float(Meteor().compute_score(gold, found)[0])
    from pycocoevalcap.spice.spice import Spice

    return float(Spice().compute_score(gold, found)[0])


def _why_no_java(folder: Path) -> str:
    if shutil.which("java") is None:
        return "there is no java on the PATH; install a Java runtime"
    # The tokenizer and SPICE put their input beside their programs.
    return (
        "" if os.access(folder / "tokenizer", os.W_OK) else f"{folder} cannot be written to; use a virtual environment"
    )


def _why_no_spice(folder: Path) -> str:
    library = folder / "spice" / "lib"
    absent = [name for name in SPICE_MODELS if not (library / name).exists()]
    return f"{', '.join(absent)} of Stanford CoreNLP 3.6.0 are not in {library}; put them there" if absent else ""
