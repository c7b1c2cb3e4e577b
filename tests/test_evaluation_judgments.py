import math

import pytest
import torch
from annotated import CAPTIONS, config, image_set, judge, write_lines, write_set

from capfilt.annotations import read_annotations
from capfilt.config.evaluation import EvaluationData, VerdictSettings
from capfilt.errors import AnnotationError, ModelError
from capfilt.evaluation.images import ImageSet
from capfilt.evaluation.judgments import Verdict, evaluate_filter, read_judgments, with_foreign_texts

LINES = [
    {"kind": "expert", "image": "0.png", "caption": "a red dog", "scores": [4, 3, 4]},
    {"kind": "crowd", "image": "1.png", "caption": "a dog", "yes_share": 0.5},
    {"kind": "expert", "image": "0.png", "caption": "a cat", "scores": [1, 2, 1]},
    {"kind": "crowd", "image": "0.png", "caption": "two dogs", "yes_share": 0.75},
    {"image": "2.png", "caption": "the cat", "score": 3},
]


def data(folder, lines, **changes):
    file = write_lines(folder / "judgments.jsonl", lines)
    return EvaluationData(annotations=str(file), images=str(folder), **changes)


def test_verdicts_are_gathered_by_image_with_what_counts_as_a_match(tmp_path):
    entries, verdicts = read_judgments(data(tmp_path, LINES), VerdictSettings())
    assert [(entry.name, entry.captions) for entry in entries] == [
        ("0.png", ("a red dog", "a cat", "two dogs")),
        ("1.png", ("a dog",)),
        ("2.png", ("the cat",)),
    ]
    assert verdicts[0] == [
        Verdict(11 / 3, True, "expert"),
        Verdict(4 / 3, False, "expert"),
        Verdict(0.75, True, "crowd"),
    ]
    assert verdicts[1] == [Verdict(0.5, False, "crowd")]  # half of the people is no majority
    assert verdicts[2] == [Verdict(3.0, True, "expert")]
    assert len(read_judgments(data(tmp_path, LINES, first=2), VerdictSettings()).entries) == 2


def test_verdicts_on_a_split_are_those_of_its_images_alone(tmp_path):
    lines = [{**line, "split": "dev" if line["image"] == "1.png" else "test"} for line in LINES]
    found = read_judgments(data(tmp_path, lines, split="test", first=1), VerdictSettings())
    assert ([entry.name for entry in found.entries], [len(each) for each in found.verdicts]) == (["0.png"], [3])
    with pytest.raises(AnnotationError, match=r"no entry of split val; set data\.split to one it has: dev, test"):
        read_judgments(data(tmp_path, lines, split="val"), VerdictSettings())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, r"judgments\.jsonl: line 1: a verdict is None, not a number; give yes_share, scores or score"),
        ({"scores": []}, "line 1: scores is"),
        ({"yes_share": "many"}, "line 1: a verdict is 'many', not a number"),
        ({"score": True}, "a verdict is True"),
        ({"yes_share": math.nan}, "a verdict is nan, not a number"),
        ({"yes_share": 1.5}, "line 1: yes_share is 1.5; give the share of people saying yes, from 0 to 1"),
        ({"caption": None}, "caption is null, expected str"),
    ],
)
def test_a_line_without_a_verdict_is_refused(tmp_path, change, message):
    with pytest.raises(AnnotationError, match=message):
        read_judgments(data(tmp_path, [{"image": "0.png", "caption": "a dog", **change}]), VerdictSettings())


@pytest.mark.parametrize("lines", [[[1]], [5], [{"images": []}], [LINES[0], [1]]])
def test_a_file_of_something_else_than_objects_is_refused(tmp_path, lines):
    with pytest.raises(AnnotationError, match=r"judgments\.jsonl: is not one JSON object per line"):
        read_judgments(data(tmp_path, lines), VerdictSettings())


def entries_of(folder):
    return read_annotations(EvaluationData(annotations=str(write_set(folder) / "captions.jsonl"), images=str(folder)))


def test_foreign_texts_are_of_other_images_and_follow_from_the_seed(tmp_path):
    entries = entries_of(tmp_path)
    first, again, other = (
        with_foreign_texts(entries, VerdictSettings(foreign_per_image=3, seed=seed)) for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other
    for entry, verdicts, captions in zip(*first, CAPTIONS, strict=True):
        own, foreign = entry.captions[: len(captions)], entry.captions[len(captions) :]
        assert list(own) == captions
        assert len(foreign) == 3
        assert not set(foreign) & set(captions)
        assert [verdict.match for verdict in verdicts] == [True] * len(own) + [False] * 3


def test_foreign_texts_may_come_from_a_file(tmp_path):
    file = write_lines(tmp_path / "web.jsonl", [{"text": f"noise {i}"} for i in range(4)])
    judged = with_foreign_texts(entries_of(tmp_path), VerdictSettings(foreign=str(file), foreign_per_image=4))
    assert all(set(entry.captions[-4:]) == {f"noise {i}" for i in range(4)} for entry in judged.entries)


@pytest.mark.parametrize("lines", [[5], [["a text"]], [{"texts": []}, None]])
def test_a_file_of_foreign_texts_that_are_no_objects_is_refused(tmp_path, lines):
    file = write_lines(tmp_path / "web.jsonl", lines)
    with pytest.raises(AnnotationError, match=r"web\.jsonl: is not one JSON object per line"):
        with_foreign_texts(entries_of(tmp_path), VerdictSettings(foreign=str(file)))


def test_too_few_foreign_texts_are_an_error(tmp_path):
    with pytest.raises(AnnotationError, match=r"has 6 texts that are foreign to 0\.png, fewer than .*: 9; lower it"):
        with_foreign_texts(entries_of(tmp_path), VerdictSettings(foreign_per_image=9))


def test_figures_are_those_of_the_filters_scores(tmp_path):
    """Each score meets its own verdict, whatever the batches are: a verdict made from the score agrees wholly."""
    model = judge(tmp_path)
    settings = config(write_set(tmp_path), "foreign_texts", verdicts={"resamples": 50})
    images = image_set(settings)
    scores = [
        score
        for numbers, pixels in images.batches("first")
        for score in model.score(pixels[:, 0], [images.entries[number].captions for number in numbers])
    ]
    middle = sorted(score.itm for group in scores for score in group)[4]
    verdicts = [[Verdict(score.itm, score.itm >= middle, "made") for score in group] for group in scores]
    figures = evaluate_filter(model, images, verdicts)["made"]
    assert (figures["images"], figures["pairs"], figures["matches"]) == (4, 8, 4)
    assert figures["itm"]["auc"] == 1.0
    assert figures["itm"]["auc_95"] == [1.0, 1.0]
    assert figures["itm"]["spearman"] == pytest.approx(1)
    assert figures["itc"]["auc"] < 1


def test_verdicts_on_an_image_that_cannot_be_decoded_are_left_out(tmp_path):
    settings = config(write_set(tmp_path), "judgments")
    (tmp_path / "0.png").write_bytes(b"")
    judged = read_judgments(data(tmp_path, LINES), settings.verdicts)
    images = ImageSet(judged.entries, data(tmp_path, LINES), settings, 32)
    figures = evaluate_filter(judge(tmp_path), images, judged.verdicts)
    assert {kind: values["pairs"] for kind, values in figures.items()} == {"crowd": 1, "expert": 1}
    assert images.left_out == {"0.png": "not_an_image"}
    assert "auc" not in figures["crowd"]["itm"]  # one pair tells nothing


def test_of_scores_that_the_filter_does_not_give_nothing_is_told(tmp_path):
    settings = config(write_set(tmp_path), "foreign_texts", verdicts={"resamples": 50})
    images = image_set(settings)
    judged = with_foreign_texts(images.entries, VerdictSettings(foreign_per_image=1))
    images.entries = judged.entries
    with_itc, without = (evaluate_filter(judge(tmp_path, itc=itc), images, judged.verdicts) for itc in (True, False))
    assert set(with_itc["own_against_foreign"]) - set(without["own_against_foreign"]) == {"itc"}
    assert with_itc["own_against_foreign"]["itm"] == without["own_against_foreign"]["itm"]


def test_a_score_that_is_no_number_is_an_error(tmp_path):
    settings = config(write_set(tmp_path), "judgments")
    judged = read_judgments(data(tmp_path, LINES), settings.verdicts)
    images = ImageSet(judged.entries, data(tmp_path, LINES), settings, 32)
    broken = judge(tmp_path)
    with torch.no_grad():
        for weights in broken.model.parameters():
            weights.fill_(math.nan)
    with pytest.raises(ModelError, match=r"0\.png: filter judge gives itm nan, itc nan to 'a red dog'; check its"):
        evaluate_filter(broken, images, judged.verdicts)
