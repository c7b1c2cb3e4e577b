"""The filter compared with people: their verdicts on pairs, and own captions against those of other images."""

import math
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple, cast

import numpy as np

from capfilt.annotations import Annotated, Entry, asked_for, field, read_json, split_of
from capfilt.config.evaluation import EvaluationData, VerdictSettings
from capfilt.errors import AnnotationError
from capfilt.evaluation.agreement import auc, auc_interval, precision_recall, spearman
from capfilt.evaluation.images import ImageSet
from capfilt.filters import Scores, require_finite_scores
from capfilt.filters.med import MEDFilter


class Verdict(NamedTuple):
    """What people say about one text of an image."""

    value: float  # larger is a better fit
    match: bool
    kind: str  # "expert", "crowd", ...: each kind has its own figures


class Judged(NamedTuple):
    """Images with the texts to score, and a verdict on each text."""

    entries: list[Annotated]
    verdicts: list[list[Verdict]]  # verdicts[i][j] is on entries[i].captions[j]


def read_judgments(data: EvaluationData, settings: VerdictSettings) -> Judged:
    """Return the verdicts of a file of JSON lines, grouped by image.

    A line has image, caption, and yes_share (in [0, 1]) or scores (a list) or score; kind, if there are several; and
    split, if data selects one.

    Raises:
        AnnotationError: the file is missing, a line has no verdict, or none is of the split.
    """
    file = data.annotations
    groups: dict[str, list[tuple[str, Verdict]]] = {}
    splits: dict[str, str] = {}
    for number, line in enumerate(_lines(file, "image and caption"), 1):
        where = f"{file}: line {number}"
        name, caption = field(line, "image", str, where), field(line, "caption", str, where)
        groups.setdefault(str(name), []).append((str(caption), _verdict(line, settings, where)))
        splits.setdefault(str(name), split_of(line))
    images = [Annotated(name, tuple(text for text, _ in groups[name]), "a verdict", splits[name]) for name in groups]
    entries = asked_for(images, data)
    return Judged(entries, [[verdict for _, verdict in groups[entry.name]] for entry in entries])


def with_foreign_texts(entries: Sequence[Annotated], settings: VerdictSettings) -> Judged:
    """Add texts to each image's own captions that do not belong to it, drawn from a file or from other images.

    Raises:
        AnnotationError: there are too few texts to draw from.
    """
    rng = np.random.Generator(np.random.Philox(settings.seed))
    pool = _texts(settings.foreign) if settings.foreign else [(c, e.name) for e in entries for c in e.captions]
    judged = Judged([], [])
    for entry in entries:
        drawn = (pool[number] for number in rng.permutation(len(pool)))
        others = (text for text, owner in drawn if owner != entry.name and text not in entry.captions)
        foreign = list(islice(others, settings.foreign_per_image))
        if len(foreign) < settings.foreign_per_image:
            raise AnnotationError(
                f"{settings.foreign or 'the annotations'}: has {len(foreign)} texts that are foreign to "
                f"{entry.name}, fewer than verdicts.foreign_per_image: {settings.foreign_per_image}; lower it"
            )
        judged.entries.append(entry._replace(captions=(*entry.captions, *foreign)))
        own = [Verdict(1.0, True, "own_against_foreign")] * len(entry.captions)
        judged.verdicts.append(own + [Verdict(0.0, False, "own_against_foreign")] * len(foreign))
    return judged


class _Said(NamedTuple):
    """What people and the filter say about a pair."""

    image: int
    verdict: Verdict
    scores: Scores


def evaluate_filter(judge: MEDFilter, images: ImageSet, verdicts: Sequence[Sequence[Verdict]]) -> dict[str, object]:
    """Return, for each kind of verdict, how well the scores of ITM and ITC agree with people.

    ITC has no figures if the filter gives no ITC scores.

    Raises:
        ModelError: a score is not a number.
    """
    said: dict[str, list[_Said]] = {}  # by kind
    for numbers, pixels in images.batches("scored"):
        scores = judge.score(pixels[:, 0], [images.entries[number].captions for number in numbers])
        for number, group in zip(numbers, scores, strict=True):
            entry = images.entries[number]
            for text, verdict, score in zip(entry.captions, verdicts[number], group, strict=True):
                require_finite_scores(score, entry.name, judge.name, text)
                said.setdefault(verdict.kind, []).append(_Said(number, verdict, score))
    return {kind: _agreement(pairs, images.config.verdicts) for kind, pairs in said.items()}


def _agreement(pairs: list[_Said], settings: VerdictSettings) -> dict[str, object]:
    images = np.unique([pair.image for pair in pairs], return_inverse=True)[1]
    values = np.array([pair.verdict.value for pair in pairs])
    match = np.array([pair.verdict.match for pair in pairs])
    figures: dict[str, object] = {
        "images": int(images.max()) + 1,
        "pairs": len(pairs),
        "matches": int(match.sum()),
    }
    for name, least in (("itm", settings.itm), ("itc", settings.itc)):
        column = [getattr(pair.scores, name) for pair in pairs]
        if None in column:
            continue
        scores = np.array(column, dtype=np.float64)
        told: dict[str, object] = {**precision_recall(scores, match, least)}
        if 0 < match.sum() < len(match):
            told["auc"] = auc(scores, match)
            told["auc_95"] = auc_interval(scores, match, images, settings.resamples, settings.seed)
        if len(set(column)) > 1 and len(set(values)) > 2:
            told["spearman"] = spearman(scores, values)
        figures[name] = told
    return figures


def _verdict(line: Entry, settings: VerdictSettings, where: str) -> Verdict:
    if "yes_share" in line:
        value = _number(line["yes_share"], where)
        if not 0 <= value <= 1:
            raise AnnotationError(f"{where}: yes_share is {value:g}; give the share of people saying yes, from 0 to 1")
        return Verdict(value, value > settings.yes_share, str(line.get("kind", "crowd")))
    scores = line.get("scores", [line.get("score")])
    if not isinstance(scores, list) or not scores:
        raise AnnotationError(f"{where}: scores is {scores!r}; give a list of numbers, score or yes_share")
    value = sum(_number(score, where) for score in scores) / len(scores)
    return Verdict(value, value >= settings.expert_score, str(line.get("kind", "expert")))


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise AnnotationError(f"{where}: a verdict is {value!r}, not a number; give yes_share, scores or score")
    return float(value)


def _texts(file: str) -> list[tuple[str, str]]:
    lines = enumerate(_lines(file, "text"), 1)
    return [(str(field(line, "text", str, f"{file}: line {number}")), "") for number, line in lines]


def _lines(file: str, wanted: str) -> list[Entry]:
    found = read_json(file)
    if not isinstance(found, list) or not all(isinstance(line, dict) for line in found):
        raise AnnotationError(f"{file}: is not one JSON object per line; give each {wanted}")
    return cast("list[Entry]", found)
