import json
from pathlib import Path

import pytest
from tars import read_all

from capfilt.errors import ShardError
from capfilt.shards import ShardReader, open_shard

UNPAIRED = "its quotes are not paired; double each quote inside a quoted cell"


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "images").mkdir()
    for n in range(3):
        (tmp_path / f"images/{n}.jpg").write_bytes(f"image {n}".encode())
    return tmp_path


def listed(folder: Path, text: str | bytes, name: str = "list.csv") -> ShardReader:
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return open_shard(str(folder / name))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.csv", 'image,caption\nimages/0.jpg,a dog\r\nimages/1.jpg,"a, ""big"" cat"\n'),
        ("list.csv", '\ufeffcaption,image_name\na dog,images/0.jpg\n\n"a, ""big"" cat",images/1.jpg'),
        ("list.tsv", 'filepath\ttitle\nimages/0.jpg\ta dog\nimages/1.jpg\t"a, ""big"" cat"\n'),
        (
            "list.jsonl",
            '{"image": "images/0.jpg", "caption": "a dog"}\n\n{"image": "images/1.jpg", "caption": "a, \\"big\\" cat"}',
        ),
        (
            "list.jsonl",
            '{"path": "images/0.jpg", "text": ["a dog", "2"]}\n{"path": "images/1.jpg", "text": ["a, \\"big\\" cat"]}',
        ),
    ],
)
def test_a_list_in_any_form_gives_the_same_samples(folder, name, text):
    shard = listed(folder, text, name)

    assert [(s.key, s.image, s.text, s.status) for s in read_all(shard)] == [
        ("images/0", b"image 0", "a dog", "ok"),
        ("images/1", b"image 1", 'a, "big" cat', "ok"),
    ]
    assert shard.damage == ""


def test_the_key_of_an_image_loses_no_more_than_its_suffix(folder):
    for name in ("v1.2", "images"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "a").write_bytes(b"image")

    samples = read_all(listed(folder, "image\nv1.2/a\nimages/a\nimages/0.jpg\nimages/.jpg\n"))

    assert [sample.key for sample in samples] == ["v1.2/a", "images/a", "images/0", "images/.jpg"]


def test_all_columns_stay_in_the_metadata(folder):
    (sample,) = read_all(
        listed(folder, '{"image": "images/0.jpg", "captions": ["a", "b"], "url": "http://x"}', "l.jsonl")
    )

    assert (sample.text, sample.url, json.loads(sample.metadata)["captions"]) == ("a", "http://x", ["a", "b"])


def test_an_image_in_another_form_and_a_path_of_windows_are_told_with_what_to_write(folder):
    lines = [{"image": {"path": "images/0.jpg"}}, {"image": ["images/0.jpg"]}, {"image": r"images\0.jpg"}]

    samples = read_all(listed(folder, "\n".join(map(json.dumps, lines)), "l.jsonl"))

    assert [sample.error for sample in samples] == [
        "line 1: names no image; write its path as a string",
        "line 2: names no image; write its path as a string",
        r"images\0.jpg: FileNotFoundError; write / between folders",
    ]


def test_each_line_of_json_may_have_other_keys(folder):
    lines = [
        {"filename": "images/0.jpg", "text": "a"},
        {"image": "images/1.jpg", "caption": "b"},
        {"image": "images/2.jpg", "captions": ["c", "d"]},
        {"image": None, "path": "images/0.jpg", "caption": None, "captions": ["e"], "title": "f"},
        {"image": "images/1.jpg", "caption": ""},
    ]

    samples = read_all(listed(folder, "\n".join(map(json.dumps, lines)), "list.jsonl"))

    assert [(sample.image[-1:], sample.text) for sample in samples] == [
        (b"0", "a"),
        (b"1", "b"),
        (b"2", "c"),
        (b"0", "e"),
        (b"1", ""),
    ]


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        *(
            (path, "is absolute")
            for path in ("/etc/passwd", "{folder}/images/0.jpg", "//host/0.jpg", "\\\\host\\0.jpg")
        ),
        *(
            (path, "has .. in it")
            for path in ("../secret.jpg", "images/../../secret.jpg", "images\\..\\..\\secret.jpg")
        ),
        *((path, "is a URL") for path in ("http://x/0.jpg", "file:///etc/passwd", "s3://bucket/0.jpg")),
        *((path, "is a URL") for path in ("0.jpg::file", "zip://0.jpg::0.zip")),
    ],
)
def test_a_path_out_of_the_folder_is_never_opened(folder, path, fault):
    (folder.parent / "secret.jpg").write_bytes(b"secret")
    path = path.replace("{folder}", str(folder))

    (sample,) = read_all(listed(folder, json.dumps({"image": path, "caption": "x"}), "list.jsonl"))

    assert (sample.status, sample.image) == ("outside_folder", b"")
    assert sample.error == f"{path} {fault}; write paths relative to the list's folder"


@pytest.mark.parametrize("path", ["images/9.jpg", "images", "images/0.jpg/x.jpg", "x" * 5000, "a\0b.jpg", "\ud800.jpg"])
def test_an_image_that_is_not_there_is_a_sample_without_one(folder, path):
    (sample,) = read_all(listed(folder, json.dumps({"image": path, "caption": "x"}), "list.jsonl"))

    assert (sample.status, sample.image, sample.text) == ("no_image", b"", "x")
    assert "".join([sample.key, sample.error]).encode()


def test_a_bad_line_is_a_sample_and_a_damage(folder):
    lines = ['{"image": "images/0.jpg"}', "{", "[1]", '{"caption": "x"}', '{"image": "images/1.jpg"}']

    shard = listed(folder, "\n".join(lines), "list.jsonl")

    assert [sample.status for sample in read_all(shard)] == ["ok", "bad_row", "bad_row", "bad_row", "ok"]
    assert shard.damage.startswith("line 2: is not JSON: ")
    assert shard.damage.endswith("; line 3: is not a JSON object")


def test_a_quote_that_never_closes_swallows_no_line_in_silence(folder):
    shard = listed(folder, 'image,caption\nimages/0.jpg,a\nimages/1.jpg,"b\nimages/2.jpg,c\n')

    assert [(sample.key, sample.status) for sample in read_all(shard)] == [
        ("images/0", "ok"),
        ("1", "bad_row"),
        ("images/2", "ok"),
    ]
    assert shard.damage == f"line 3: {UNPAIRED}"


STRAY = {15: '"Beware of the dog sign', 45: 'Picture frame 8x12"'}


def sixty(delimiter: str, captions: dict[int, str], columns: str = "image caption", ending: str = "jpg") -> str:
    """Return a table of sixty rows; row n stands in line n + 2."""
    rows = [{"image": f"images/{n}.{ending}", "caption": captions.get(n, f"text {n}")} for n in range(60)]
    cells = [columns.split(), *([row[name] for name in columns.split()] for row in rows)]
    return "".join(f"{delimiter.join(row)}\n" for row in cells)


@pytest.mark.parametrize("columns", ["image caption", "caption image"])
@pytest.mark.parametrize("ending", ["jpg", "000"])
def test_in_a_tsv_a_quote_is_a_character_as_others_are(folder, columns, ending):
    shard = listed(folder, sixty("\t", STRAY, columns, ending), "list.tsv")

    assert [sample.text for sample in read_all(shard)] == [STRAY.get(n, f"text {n}") for n in range(60)]
    assert shard.damage == ""


@pytest.mark.parametrize("columns", ["image caption", "caption image"])
@pytest.mark.parametrize("closing", [16, 17, 45, None])
def test_a_stray_quote_in_a_csv_costs_its_own_row_and_no_other(folder, columns, closing):
    captions = {15: STRAY[15]} | ({closing: STRAY[45]} if closing else {})

    shard = listed(folder, sixty(",", captions, columns))

    samples = read_all(shard)
    assert [sample.text for sample in samples] == ["" if n == 15 else captions.get(n, f"text {n}") for n in range(60)]
    assert [sample.position for sample in samples if sample.status == "bad_row"] == [15]
    assert samples[15].error == shard.damage == f"line 17: {UNPAIRED}"
    assert list(shard.read(14, 18)) == samples[14:18]


@pytest.mark.parametrize("columns", ["image caption", "caption image"])
@pytest.mark.parametrize("ending", [".000", ""])
@pytest.mark.parametrize("closing", [16, 17, 45])
def test_nor_does_it_where_the_images_have_endings_of_their_own_or_none(folder, columns, ending, closing):
    captions = {15: STRAY[15], closing: STRAY[45]}

    shard = listed(folder, sixty(",", captions, columns).replace(".jpg", ending))

    samples = read_all(shard)
    assert [sample.text for sample in samples] == ["" if n == 15 else captions.get(n, f"text {n}") for n in range(60)]
    assert shard.damage == f"line 17: {UNPAIRED}"


def test_lines_that_are_lost_together_are_named(folder):
    """A name without a known ending may be the beginning of a caption, too."""
    shard = listed(folder, 'image,caption\nimages/0,a\nimages/1,"b\nimages/2,c\nimages/3,"d"\nimages/4,e\n')

    assert [sample.text for sample in read_all(shard)] == ["a", "", "e"]
    assert shard.damage == f"lines 3 to 5: {UNPAIRED}"


@pytest.mark.parametrize(
    ("name", "head", "row"),
    [
        ("list.csv", "image,caption", 'images/0.jpg,"a ""dog"",\r\nasleep\n\non 1.jpg"'),
        ("list.csv", "caption,image", '"a ""dog"",\r\nasleep\n\non 1.jpg",images/0.jpg'),
        ("list.csv", "title,image,caption", '"x\ny",images/0.jpg,"a ""dog"",\r\nasleep\n\non 1.jpg"'),
        ("list.tsv", "image\tcaption", 'images/0.jpg\t"a ""dog"",\r\nasleep\n\non 1.jpg"'),
        ("list.tsv", "caption\timage", '"a ""dog"",\r\nasleep\n\non 1.jpg"\timages/0.jpg'),
    ],
)
def test_a_caption_in_quotes_may_hold_line_ends(folder, name, head, row):
    shard = listed(folder, f"{head}\n{row}\n{row}\n", name)

    assert [(s.image, s.text) for s in read_all(shard)] == [(b"image 0", 'a "dog",\r\nasleep\n\non 1.jpg')] * 2
    assert shard.damage == ""


def test_a_whole_cell_of_a_tsv_in_quotes_is_taken_out_of_them(folder):
    cells = ['"a ""dog"""', '"a\tdog"', '"Hello" said the "dog"', '5" disk', '"', '""']

    shard = listed(folder, "image\tcaption\n" + "".join(f"images/0.jpg\t{cell}\n" for cell in cells), "list.tsv")

    assert [sample.text for sample in read_all(shard)] == ['a "dog"', "a\tdog", *cells[2:5], ""]


def test_a_head_whose_quotes_do_not_pair_is_refused(folder):
    with pytest.raises(ShardError, match="line 1: its quotes are not paired"):
        listed(folder, 'image,"caption" x\nimages/0.jpg,a\n')


def test_a_line_with_too_many_cells_is_bad_and_with_too_few_has_no_text(folder):
    shard = listed(folder, "image,caption\nimages/0.jpg,a,b\nimages/1.jpg\n")

    assert [(s.status, s.text_status) for s in read_all(shard)] == [("bad_row", "ok"), ("ok", "missing")]
    assert shard.damage == "line 2: has 3 cells, the head 2"


def test_a_caption_that_is_not_utf8_costs_only_itself(folder):
    shard = listed(folder, b"image,caption\nimages/0.jpg,caf\xe9\nimages/1.jpg,a cat\n")

    first, second = read_all(shard)

    assert (first.text_status, first.status, second.text) == ("not_utf8", "ok", "a cat")
    assert json.loads(first.metadata)["caption"] == "caf\\xed\\xb3\\xa9"


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("list.csv", "a,b\n1,2\n", "no column names the image files; name it image; found ['a', 'b']"),
        ("list.csv", "image;caption\n1.jpg;a\n", "the head is one cell, 'image;caption'; put commas between cells"),
        ("list.tsv", "image,caption\n1.jpg,a\n", "the head is one cell, 'image,caption'; put tabs between cells"),
        ("list.csv", "1.jpg,a\n", "line 1 is a row, not a head; write a head above it, with a column image"),
        ("list.csv", "image\n1.jpg\n".encode("utf-16"), "begins like UTF-16; save it as UTF-8"),
        ("list.csv", "image\n1.jpg\n".encode("utf-16-be"), "begins like UTF-16; save it as UTF-8"),
        ("list.csv", "URL,TEXT\nu,a\n", "no column names image files; let img2dataset fetch those of the URLs"),
        ("list.jsonl", '{"url": "u"}', "no key names image files; let img2dataset fetch those of the URLs"),
        ("list.csv", "image,caption,caption\n1.jpg,a,b\n", "has several columns caption; give all but one other names"),
        ("list.jsonl", '{"a": 1}', "no key names the image files; name it image; found ['a']"),
        ("list.csv", f"{'x' * 2_000_000}\n", f"no column names the image files; name it image; found ['{'x' * 99}…']"),
        ("list.jsonl", f'{{"{"x" * 200}": 1}}', f"no key names the image files; name it image; found ['{'x' * 99}…']"),
        (
            "list.jsonl",
            '[{"image": 1}]',
            "line 1 is not a JSON object; write an object with the key image in each line",
        ),
    ],
)
def test_a_list_that_names_no_images_is_refused_with_what_to_do(folder, name, text, told):
    with pytest.raises(ShardError) as refusal:
        listed(folder, text, name)

    assert str(refusal.value) == f"{folder / name}: {told}"


def test_columns_without_a_name_may_be_several_as_commas_at_the_ends_of_lines_make_them(folder):
    (sample,) = read_all(listed(folder, "image,caption,,\nimages/0.jpg,a dog,,\n"))

    assert (sample.image, sample.text) == (b"image 0", "a dog")


def test_an_object_that_is_nested_too_deep_to_be_written_again_is_a_bad_row(folder):
    deep = "[" * 900 + "]" * 900
    shard = listed(folder, f'{{"image": "images/0.jpg", "x": {deep}}}\n{{"image": "images/1.jpg"}}\n', "list.jsonl")

    def further_down(calls: int) -> list[str]:
        return further_down(calls - 1) if calls else [sample.status for sample in read_all(shard)]

    assert further_down(100) == ["bad_row", "ok"]
    assert shard.damage == "line 1: is not JSON: nested over 800 levels deep"


def test_columns_of_a_table_may_be_named_in_any_case(folder):
    (sample,) = read_all(listed(folder, "CAPTION, Image \na dog,images/0.jpg\n"))

    assert (sample.image, sample.text, json.loads(sample.metadata)["CAPTION"]) == (b"image 0", "a dog", "a dog")


@pytest.mark.parametrize("quote", ["", '"'])
def test_a_text_of_any_length_is_cut_as_in_other_shards(folder, quote):
    shard = listed(folder, f"image,caption\nimages/0.jpg,{quote}{'w ' * 200_000}{quote}\nimages/1.jpg,b\n")

    first, second = read_all(shard)

    assert (first.status, first.text, first.text_status) == ("ok", "w " * 5000, "cut")
    assert (second.text, shard.damage) == ("b", "")


def test_a_cell_in_quotes_that_is_no_text_at_all_is_a_bad_row(folder):
    shard = listed(folder, f'image,caption\nimages/0.jpg,"{"w" * (5 << 20)}"\nimages/1.jpg,b\n')

    assert [sample.status for sample in read_all(shard)] == ["bad_row", "ok"]
    assert shard.damage == "line 2: has a cell of over 4194304 characters"


@pytest.mark.parametrize(("name", "text"), [("list.csv", "image,caption\n"), ("list.jsonl", "\n")])
def test_a_list_without_rows_holds_no_samples(folder, name, text):
    shard = listed(folder, text, name)

    assert (shard.samples, shard.damage) == (0, "holds no samples")


def test_a_list_that_changed_is_noticed(folder):
    shard = listed(folder, "image\nimages/0.jpg\n")
    listed(folder, "image\nimages/0.jpg\nimages/1.jpg\n")

    with pytest.raises(ShardError, match="when it was indexed"):
        next(shard.read(0, 1))
