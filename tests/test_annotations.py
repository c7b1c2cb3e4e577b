import json
from pathlib import Path

import pytest
from annotated import write_lines

from capfilt.annotations import read_annotations
from capfilt.config.evaluation import EvaluationData
from capfilt.errors import AnnotationError

KARPATHY = {
    "dataset": "coco",
    "images": [
        {"filepath": "val2014", "filename": "1.jpg", "split": "test", "sentences": [{"raw": "a dog"}, {"raw": "dogs"}]},
        {"filepath": "train2014", "filename": "2.jpg", "split": "restval", "sentences": [{"raw": "a cat"}]},
    ],
}
FLICKR = {"images": [{"filename": "1.jpg", "split": "test", "sentences": [{"raw": "a dog"}, {"raw": "dogs"}]}]}
ORIGINAL_TEST = [{"image": "val2014/1.jpg", "caption": ["a dog", "dogs"]}, {"image": "2.jpg", "caption": ["a cat"]}]
ORIGINAL_TRAIN = [
    {"image": "1.jpg", "caption": "a dog", "image_id": "coco_1"},
    {"image": "2.jpg", "caption": "a cat", "image_id": "coco_2"},
    {"image": "1.jpg", "caption": "dogs", "image_id": "coco_1"},
]
COCO = {
    "images": [{"id": 7, "file_name": "1.jpg"}, {"id": "5b", "file_name": "2.jpg"}],
    "annotations": [
        {"image_id": "5b", "id": 1, "caption": "a cat"},
        {"image_id": 7, "id": 2, "caption": "a dog"},
        {"image_id": 7, "id": 3, "caption": "dogs"},
    ],
}


def read(path: Path, **changes: object):
    return read_annotations(EvaluationData(annotations=str(path), images="images", **changes))


def written(folder: Path, value: object) -> Path:
    (folder / "notes.json").write_text(json.dumps(value))
    return folder / "notes.json"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (KARPATHY, {"val2014/1.jpg": ("a dog", "dogs"), "train2014/2.jpg": ("a cat",)}),
        (FLICKR, {"1.jpg": ("a dog", "dogs")}),
        (ORIGINAL_TEST, {"val2014/1.jpg": ("a dog", "dogs"), "2.jpg": ("a cat",)}),
        (ORIGINAL_TRAIN, {"1.jpg": ("a dog", "dogs"), "2.jpg": ("a cat",)}),
        (COCO, {"1.jpg": ("a dog", "dogs"), "2.jpg": ("a cat",)}),
    ],
    ids=["karpathy", "flickr", "original test", "original train", "coco"],
)
def test_each_published_layout_gives_images_with_their_captions_in_order(tmp_path, value, expected):
    entries = read(written(tmp_path, value))
    assert {entry.name: entry.captions for entry in entries} == expected
    assert list(expected) == [entry.name for entry in entries]


def test_a_split_is_taken_and_first_counts_after_it(tmp_path):
    path = written(tmp_path, KARPATHY)
    assert [entry.name for entry in read(path, split="restval")] == ["train2014/2.jpg"]
    assert [entry.name for entry in read(path, first=1)] == ["val2014/1.jpg"]


def test_the_domain_of_nocaps_is_its_split(tmp_path):
    domains = ("in-domain", "out-domain")
    images = [{**image, "domain": domain} for image, domain in zip(COCO["images"], domains, strict=True)]
    entries = read(written(tmp_path, {**COCO, "images": images}), split="out-domain")
    assert [entry.name for entry in entries] == ["2.jpg"]


def test_lines_may_hold_captions_clips_or_frames(tmp_path):
    lines = [
        {"image": "1.jpg", "captions": ["a dog", "dogs"], "caption": "", "official_split": "test", "split": "train"},
        {"clip_name": "video7", "caption": "a cat", "split": "val"},
        {"image": "8.jpg", "video": "v8", "frames": ["v8/3.jpg", "v8/9.jpg"], "caption": "cats"},
        {"frames": ["v9/3.jpg", "v9/9.jpg"], "caption": "a cow"},
    ]
    image, clip, frames, nameless = read(write_lines(tmp_path / "notes.jsonl", lines))
    assert (image.name, image.captions, image.split) == ("1.jpg", ("a dog", "dogs"), "test")
    assert (clip.name, clip.captions, clip.split, clip.frames) == ("video7", ("a cat",), "val", ())
    assert (frames.name, frames.frames) == ("v8", ("v8/3.jpg", "v8/9.jpg"))
    assert (nameless.name, nameless.frames) == ("v9/3.jpg", ("v9/3.jpg", "v9/9.jpg"))


def test_a_line_separator_inside_a_caption_is_no_end_of_line(tmp_path):
    lines = [{"image": f"{i}.jpg", "caption": "a\u2028dog"} for i in range(2)]
    (tmp_path / "n.jsonl").write_text("\n\n".join(json.dumps(line, ensure_ascii=False) for line in lines))
    assert [entry.captions for entry in read(tmp_path / "n.jsonl")] == [("a\u2028dog",)] * 2


def test_one_line_alone_is_a_file_of_lines(tmp_path):
    assert read(write_lines(tmp_path / "n.jsonl", [{"image": "1.jpg", "caption": "a"}]))[0].name == "1.jpg"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"images": [{"filename": "1.jpg", "sentences": ["a dog"]}]}, "entry 1: sentences: entry 1 is a str, not"),
        (
            {"images": [{"file_name": "1.jpg"}], "annotations": []},
            r"notes\.json: image 1: id is neither a number nor a name",
        ),
        ({"images": [{"file_name": "1.jpg"}], "annotations": {}}, "entry 1: filename is missing"),
        (
            {"images": [], "annotations": [{"caption": "a"}]},
            "annotation 1: image_id is neither a number nor a name; give",
        ),
        (
            {"images": [], "annotations": [{"caption": "a", "image_id": [7]}]},
            "annotation 1: image_id is neither a number",
        ),
        ([{"image": "1.jpg"}], r"notes\.json: entry 1: 1\.jpg has no text under captions or caption; give each"),
        ([{"image": "1.jpg", "caption": ["a dog", None]}], r"notes\.json: entry 1: 1\.jpg has no text under captions"),
        ([{"image": "1.jpg", "caption": " "}] * 2, r"entry 1: 1\.jpg has no caption; give a file with captions"),
        ([{"caption": "a dog"}], r"notes\.json: entry 1: image is missing, expected str"),
        ([{"image": 3, "caption": "a"}], "image is 3, expected str"),
        ([{"image": None, "caption": "a"}], "image is null, expected str"),
        ([{"image": [0] * 99, "caption": "a"}], r"image is \[0[ 0,]{48}, expected str"),
        ([3], "entry 1 is a int, not an object"),
        ([], "holds no entry; fetch it again"),
        ({"pictures": []}, "image is missing"),
        (3, "holds neither a list of entries nor one under images"),
        ({"images": [{"filename": "1.jpg", "sentences": [{"text": "a"}]}]}, "entry 1: raw is missing"),
        ({"images": [{"id": 1}], "annotations": []}, "image 1: file_name is missing"),
        ({"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": []}, r"image 1: 1\.jpg has no caption"),
    ],
)
def test_another_layout_is_refused_with_entry_and_remedy(tmp_path, value, message):
    with pytest.raises(AnnotationError, match=message):
        read(written(tmp_path, value))


@pytest.mark.parametrize(
    "text",
    [
        '\ufeff[{"image": "1.jpg", "caption": "a"}, {"image": "2.jpg", "caption": "b"}]',
        '\ufeff{"image": "1.jpg", "caption": "a"}\r\n{"image": "2.jpg", "caption": "b"}\r\n',
        '[{"image": "1.jpg", "caption": "a"}\n,{"image": "2.jpg", "caption": "b"}\n]',
        '{\n "images": [\n  {"id": 1, "file_name": "1.jpg"},\n  {"id": 2, "file_name": "2.jpg"}\n ],\n'
        ' "annotations": [{"image_id": 1, "caption": "a"}, {"image_id": 2, "caption": "b"}]\n}\n',
    ],
    ids=["byte order mark", "lines with one", "commas in front", "indented"],
)
def test_a_file_may_be_written_as_editors_and_other_programs_do(tmp_path, text):
    (tmp_path / "notes.json").write_bytes(text.encode())

    assert [(entry.name, entry.captions) for entry in read(tmp_path / "notes.json")] == [
        ("1.jpg", ("a",)),
        ("2.jpg", ("b",)),
    ]


@pytest.mark.parametrize("text", ["[" * 200_000, '[{"image": 1' + "0" * 5000 + "}]"], ids=["brackets", "number"])
def test_json_that_python_cannot_hold_is_named(tmp_path, text):
    (tmp_path / "notes.json").write_text(text)

    with pytest.raises(AnnotationError, match=r"notes\.json: is not JSON"):
        read(tmp_path / "notes.json")


@pytest.mark.parametrize("escape", [r"\ud", r"\uD"])
@pytest.mark.parametrize("half", [0xD83D, 0xDC36])
def test_half_a_character_alone_which_no_tokenizer_takes_becomes_a_question_mark(tmp_path, half, escape):
    captions = [f"a {chr(half)} dog"]

    path = written(tmp_path, [{"image": "1.jpg", "caption": captions}])
    path.write_text(path.read_text().replace(r"\ud", escape))

    (entry,) = read(path)

    assert entry.captions == ("a ? dog",)


def test_a_character_of_two_halves_is_read_as_one_beside_half_of_another(tmp_path):
    (entry,) = read(written(tmp_path, [{"image": "1.jpg", "caption": ["a dog \ud83d", "a cat \N{DOG FACE}"]}]))

    assert entry.captions == ("a dog ?", "a cat \N{DOG FACE}")


def test_a_missing_file_and_a_damaged_one_are_named(tmp_path):
    with pytest.raises(AnnotationError, match=r"none\.json: is not there"):
        read(tmp_path / "none.json")
    (tmp_path / "cut.json").write_text('[{"image": ')
    with pytest.raises(AnnotationError, match=r"cut\.json: is not JSON"):
        read(tmp_path / "cut.json")
    (tmp_path / "latin.json").write_bytes(b'[{"image": "\xe9"}]')
    with pytest.raises(AnnotationError, match="is not UTF-8 at byte 12"):
        read(tmp_path / "latin.json")
    (tmp_path / "lines.jsonl").write_text('{"image": "1.jpg", "caption": "a"}\n{"image": \n')
    with pytest.raises(AnnotationError, match=r"lines\.jsonl: line 2: is not JSON"):
        read(tmp_path / "lines.jsonl")


def test_a_split_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    with pytest.raises(AnnotationError, match=r"no entry of split val; set data\.split to one it has: restval, test"):
        read(written(tmp_path, KARPATHY), split="val")
    with pytest.raises(AnnotationError, match=r"set data\.split to one it has: none at all$"):
        read(written(tmp_path, ORIGINAL_TEST), split="val")
    with pytest.raises(AnnotationError, match=r"set data\.split to one it has: dev$"):
        read(written(tmp_path, [*ORIGINAL_TEST, {"image": "3.jpg", "caption": "a", "split": "dev"}]), split="val")


def test_the_real_captions_are_read(shared):
    folder = shared / "data" / "human" / "dev"
    entries = read(folder / "captions.jsonl", split="test")
    assert len(entries) == 734
    assert {len(entry.captions) for entry in entries} == {5}
    assert all((folder / entry.name).exists() for entry in entries)
