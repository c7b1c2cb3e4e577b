"""NLVR2's sentences become batches, their images swapped at random together with left and right."""

import json

import pytest
import torch
from tasks import write_images, write_json

from capfilt.config.tasks import SentenceData, SentenceFile
from capfilt.errors import AnnotationError
from capfilt.med.tokenizer import SPECIAL, Tokenizer
from capfilt.training.passes import Draw
from capfilt.training.statements import Statements, mirrored, read_statements

LINES = [
    {"identifier": "train-7-0-0", "directory": 3, "sentence": "The dog is on the left.", "label": "True"},
    {"identifier": "train-7-0-1", "directory": 3, "sentence": "Two cats.", "label": "False"},
]
IMAGES = "train/{directory}/{pair}-img{side}.png"


@pytest.fixture
def file(tmp_path):
    """NLVR2's own layout: lines, and images in numbered folders."""
    path = tmp_path / "train.json"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    write_images(tmp_path, "train/3/train-7-0-img0.png", "train/3/train-7-0-img1.png")
    return SentenceFile(annotations=str(path), images=f"{tmp_path}/{IMAGES}")


def statements(tmp_path, file: SentenceFile, **changes: object) -> Statements:
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join([*SPECIAL, "the", "dog", "is", "on", "left", "right", "two", "cats"]) + "\n")
    return Statements(SentenceData(files=[file], **changes), Tokenizer(vocabulary), image_size=32)


def test_the_published_lines(tmp_path, file):
    first, second = read_statements(file)
    left, right = (f"{tmp_path}/train/3/train-7-0-img{side}.png" for side in (0, 1))
    assert first == ((left, right), "The dog is on the left.", True)
    assert second == ((left, right), "Two cats.", False)


def test_the_originals_own_file(tmp_path):
    entry = {"sentence": "Two cats.", "label": "True", "images": ["dev/a-img0.png", "dev/a-img1.png"]}
    path = write_json(tmp_path / "nlvr_dev.json", [entry, entry])
    found = read_statements(SentenceFile(annotations=path, images="nlvr/{image}"))
    assert found == [(("nlvr/dev/a-img0.png", "nlvr/dev/a-img1.png"), "Two cats.", True)] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": None}, r"entry 1: label is None, neither True nor False; use a split with labels"),
        ({"images": ["a.png"]}, r"entry 1: has 1 image, not two"),
        ({"identifier": 7}, r"entry 1: identifier is 7, expected str"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path, change, message):
    path = write_json(tmp_path / "dev.json", [{**LINES[0], **change}])
    with pytest.raises(AnnotationError, match=message):
        read_statements(SentenceFile(annotations=path, images="{pair}"))


def test_a_file_without_a_sentence_is_refused(tmp_path):
    with pytest.raises(AnnotationError, match=r"dev\.json: holds no sentence; fetch it again"):
        read_statements(SentenceFile(annotations=write_json(tmp_path / "dev.json", []), images="{pair}"))


def test_a_long_sentence_is_cut_to_words_and_tokens(tmp_path, file):
    for change in ({"max_words": 2}, {"max_tokens": 4}):
        data = statements(tmp_path, file, swap=False, **change)
        assert data[Draw(0, 0, 0)].ids == [data.tokenizer.enc, *data.tokenizer.pieces("the dog"), data.tokenizer.end]


def test_a_batch_holds_both_images_in_their_order(tmp_path, file):
    data = statements(tmp_path, file, swap=False)
    batch = data.collate([data[Draw(index, 0, index)] for index in (0, 1)])
    assert batch.pixels.shape == (2, 2, 3, 32, 32)
    assert batch.pixels[:, :, 0, 0, 0].tolist() == [[0, 40], [0, 40]]
    assert batch.ids[:, 0].tolist() == [data.tokenizer.enc] * 2
    assert batch.labels.tolist() == [1, 0]


def test_images_and_sides_are_swapped_together_in_about_every_second_draw(tmp_path, file):
    data = statements(tmp_path, file)
    straight, swapped = (
        data.tokenizer.encode(f"the dog is on the {side}", data.tokenizer.enc, 64) for side in ("left", "right")
    )
    assert straight != swapped
    swaps = 0
    for number in range(200):
        pixels, ids, label = data[Draw(0, 0, number)]
        order = pixels[:, 0, 0, 0].tolist()
        assert (order, ids, label) in (([0, 40], straight, True), ([40, 0], swapped, True))
        swaps += order == [40, 0]
    assert 70 < swaps < 130
    assert torch.equal(data[Draw(0, 0, 5)].pixels, data[Draw(0, 0, 5)].pixels)


def test_only_whole_words_change_sides():
    assert mirrored("the left dog is right of a leftover") == "the right dog is left of a leftover"
