import json
import math
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tars import read_all

from capfilt.errors import ShardError
from capfilt.shards import ShardReader, open_shard
from capfilt.training.reading import texts_of

IMG2DATASET = {
    "url": ["http://x/0.jpg", "http://x/1.jpg", "http://x/2.jpg"],
    "caption": ["a dog", None, " "],
    "key": ["000000000", "000000001", "000000002"],
    "status": ["success", "failed_to_download", "success"],
    "error_message": [None, "HTTP Error 404", None],
    "width": [4.0, math.nan, 5.0],
    "jpg": [b"image 0", None, b""],
}


def written(path: Path, columns: dict | pa.Table, **options: object) -> ShardReader:
    pq.write_table(pa.table(columns) if isinstance(columns, dict) else columns, path, **options)
    return open_shard(str(path))


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("image", pa.struct({"path": pa.string()})),
        ("images", pa.list_(pa.field("element", pa.binary()))),
        ("img", pa.string()),
        ("jpg", pa.dictionary(pa.int32(), pa.binary())),
    ],
)
def test_images_in_another_form_are_told_with_their_type(tmp_path, column, kind):
    with pytest.raises(ShardError, match=f"; {re.escape(f'{column} is of type {kind}')}; write the bytes of one image"):
        written(tmp_path / "0.parquet", {column: pa.nulls(1, kind), "text": ["a"]})


def test_img2dataset_rows_become_samples_whatever_became_of_their_download(tmp_path):
    shard = written(tmp_path / "00000.parquet", IMG2DATASET)

    samples = read_all(shard)

    assert shard.damage == ""
    assert [(s.key, s.image, s.text, s.status, s.text_status, s.url) for s in samples] == [
        ("000000000", b"image 0", "a dog", "ok", "ok", "http://x/0.jpg"),
        ("000000001", b"", "", "no_image", "missing", "http://x/1.jpg"),
        ("000000002", b"", "", "empty_image", "empty", "http://x/2.jpg"),
    ]
    assert samples[1].error == "HTTP Error 404"
    assert json.loads(samples[1].metadata)["width"] is None


def test_the_image_struct_of_hf_datasets_is_read(tmp_path):
    image = pa.array([{"bytes": b"x", "path": None}, None, {"bytes": None, "path": "a.jpg"}])
    shard = written(tmp_path / "train.parquet", {"image": image, "text": ["a", "b", "c"]})

    assert [(s.key, s.image, s.text, s.status) for s in read_all(shard)] == [
        ("0", b"x", "a", "ok"),
        ("1", b"", "b", "no_image"),
        ("2", b"", "c", "no_image"),
    ]


def test_the_image_of_a_row_is_taken_from_the_column_that_holds_it(tmp_path):
    image = pa.array([{"bytes": None, "path": "a.jpg"}] * 4 + [{"bytes": b"other", "path": None}])
    columns = {"jpg": [b"jpg", None, b"", None, b"jpg"], "png": [None, b"png", b"png", None, b"png"], "image": image}
    samples = read_all(written(tmp_path / "0.parquet", columns))

    assert [(s.image, s.status) for s in samples] == [
        (b"jpg", "ok"),
        (b"png", "ok"),
        (b"png", "ok"),
        (b"", "no_image"),
        (b"jpg", "ok"),
    ]
    assert samples[3].error == "jpg is null"
    assert {s.metadata for s in samples} == {"{}"}  # images that were not taken are no metadata


def test_an_image_struct_without_bytes_is_told_with_its_path(tmp_path):
    image = pa.array([{"bytes": None, "path": "a.jpg"}], pa.struct({"bytes": pa.binary(), "path": pa.string()}))

    (sample,) = read_all(written(tmp_path / "0.parquet", {"image": image}))

    assert sample.status == "no_image"
    assert sample.error == "image holds the path 'a.jpg' alone; write the bytes of its file"


def test_fields_of_the_json_are_the_samples_beside_the_other_columns(tmp_path):
    """HF's copies of WebDatasets have the fields of all samples in each, most of them null."""
    fields = {"caption": "a dog", "url": "http://x", "key": None}
    kind = pa.struct(dict.fromkeys(fields, pa.string()))
    columns = {"jpg": [b"x"], "json": pa.array([fields], kind), "__key__": ["000"], "key": ["7"]}

    (sample,) = read_all(written(tmp_path / "0.parquet", columns))

    assert (sample.key, sample.text, sample.url) == ("7", "a dog", "http://x")
    assert json.loads(sample.metadata) == {"caption": "a dog", "url": "http://x", "__key__": "000", "key": "7"}


@pytest.mark.parametrize("value", [0, 7, "a dog"])
def test_a_column_without_a_name_is_metadata(tmp_path, value):
    """As pyarrow reads the index in a CSV of pandas."""
    (sample,) = read_all(written(tmp_path / "0.parquet", {"": [value], "jpg": [b"x"]}))

    assert (sample.key, sample.text_status, sample.error) == ("0", "missing", "")
    assert json.loads(sample.metadata) == {"": value}


def test_bytes_inside_another_column_are_no_metadata(tmp_path):
    columns = {"image": [b"x"], "edited": pa.array([{"bytes": b"y", "path": "y.jpg"}]), "mask": [b"z"]}

    (sample,) = read_all(written(tmp_path / "0.parquet", columns))

    assert json.loads(sample.metadata) == {"edited": {"bytes": None, "path": "y.jpg"}}


@pytest.mark.parametrize(
    ("images", "texts"),
    [
        (pa.binary(), pa.dictionary(pa.int32(), pa.string())),
        (pa.large_binary(), pa.large_string()),
        (pa.binary_view(), pa.string_view()),
    ],
    ids=["category", "large", "view"],
)
def test_columns_may_be_of_any_type_of_their_kind(tmp_path, images, texts):
    text = pa.array(["a dog", None, "a dog"], texts)
    shard = written(tmp_path / "0.parquet", {"image": pa.array([b"x", b"y", None], images), "text": text})

    assert [(s.image, s.text, s.text_status) for s in read_all(shard)] == [
        (b"x", "a dog", "ok"),
        (b"y", "", "missing"),
        (b"", "a dog", "ok"),
    ]


def test_a_table_with_two_columns_of_a_name_is_refused(tmp_path):
    columns = [pa.array([b"x"]), pa.array(["a"]), pa.array(["b"])]
    table = pa.Table.from_arrays(columns, names=["jpg", "caption", "caption"])

    with pytest.raises(ShardError, match=r"0\.parquet: has several columns caption; write it with other names"):
        written(tmp_path / "0.parquet", table)


@pytest.mark.parametrize("rows_in_group", [1, 7, 16, 1000])
def test_any_slice_is_the_slice_of_the_whole(tmp_path, rows_in_group):
    columns = {"jpg": [str(n).encode() for n in range(50)], "caption": [str(n) for n in range(50)]}
    shard = written(tmp_path / "0.parquet", columns, row_group_size=rows_in_group)
    whole = read_all(shard)

    assert [sample.text for sample in whole] == columns["caption"]
    for lo, hi in ((0, 1), (6, 8), (15, 33), (49, 50), (10, 10)):
        assert list(shard.read(lo, hi)) == whole[lo:hi]


def test_a_text_that_is_not_utf8_costs_only_itself(tmp_path):
    captions = pa.Array.from_buffers(pa.string(), 2, pa.array([b"a dog", b"caf\xe9"]).buffers())
    shard = written(tmp_path / "0.parquet", {"jpg": [b"x", b"y"], "caption": captions})

    assert [sample.text_status for sample in read_all(shard)] == ["ok", "not_utf8"]


@pytest.mark.parametrize(
    ("values", "error"),
    [
        (pa.array([2**31 - 1, 0], pa.int32()).cast(pa.date32()), "OverflowError"),
        (pa.array([2**62, 0], pa.timestamp("us")), "OverflowError"),
        (pa.array([2**62, 0], pa.duration("ms")), "OverflowError"),
        (pa.array([b"\xff", b"0"]).view(pa.string()), "UnicodeDecodeError"),
    ],
    ids=["date", "time", "duration", "not utf-8"],
)
def test_a_value_that_python_cannot_hold_costs_only_itself(tmp_path, values, error):
    shard = written(tmp_path / "0.parquet", {"jpg": [b"x", b"y"], "caption": ["a dog", "a cat"], "when": values})

    first, second = read_all(shard)

    assert [(s.image, s.text, s.status) for s in (first, second)] == [(b"x", "a dog", "ok"), (b"y", "a cat", "ok")]
    assert (first.error, second.error) == (f"when cannot be read and is dropped ({error})", "")
    assert [list(json.loads(s.metadata)) for s in (first, second)] == [[], ["when"]]


def test_a_table_without_images_is_refused_with_a_hint(tmp_path):
    with pytest.raises(ShardError, match=r"no column holds image bytes; it has url, caption; .* give the tar"):
        written(tmp_path / "0.parquet", {"url": ["x"], "caption": ["y"]})
    with pytest.raises(ShardError, match=r"; else let img2dataset fetch the images \(--output_format webdataset\)$"):
        written(tmp_path / "0.parquet", {"url": ["x"], "caption": ["y"]})


@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
def test_the_table_beside_a_tar_is_told_as_such(tmp_path, suffix):
    (tmp_path / f"0{suffix}").touch()

    with pytest.raises(ShardError) as caught:
        written(tmp_path / "0.parquet", {"url": ["x"], "caption": ["y"]})

    assert str(caught.value) == (
        f"{tmp_path}/0.parquet: is not a shard but the table of 0{suffix}; "
        f"give only the tars, by their folder or as *{suffix}"
    )


def test_bytes_under_a_name_that_images_do_not_have_are_told_with_the_name_to_give(tmp_path):
    with pytest.raises(ShardError, match="no column with a name of images holds bytes; if IMAGE or data has them"):
        written(tmp_path / "0.parquet", {"IMAGE": [b"x"], "caption": ["y"], "data": [b"z"]})


def test_columns_of_any_number_and_length_are_told_in_a_short_line(tmp_path):
    with pytest.raises(ShardError, match=r"it has x{99}…, a↵b, n2, .*, n9, \.\.\.; where") as told:
        written(tmp_path / "0.parquet", {"x" * 2_000_000: [1], "a\nb": [1]} | {f"n{i}": [1] for i in range(2, 5000)})
    assert len(str(told.value)) < 1000


def test_a_file_cut_before_its_footer_is_refused(tmp_path):
    written(tmp_path / "0.parquet", IMG2DATASET)
    data = (tmp_path / "0.parquet").read_bytes()
    (tmp_path / "0.parquet").write_bytes(data[:-20])

    with pytest.raises(ShardError, match=rf"is cut at byte {len(data) - 20}"):
        open_shard(str(tmp_path / "0.parquet"))


def test_a_damaged_page_is_an_error_that_names_the_row_group(tmp_path):
    columns = {"jpg": [bytes([n]) * 1000 for n in range(100)]}
    shard = written(tmp_path / "0.parquet", columns, row_group_size=50, compression="zstd", use_dictionary=False)
    path = tmp_path / "0.parquet"
    data = bytearray(path.read_bytes())
    data[4:200] = bytes(196)
    path.write_bytes(data)

    assert len(list(shard.read(50, 100))) == 50
    with pytest.raises(ShardError, match=r"0\.parquet: row group 0, row 0 cannot be read"):
        list(shard.read(0, 100))


def test_a_file_written_anew_is_noticed(tmp_path):
    shard = written(tmp_path / "0.parquet", IMG2DATASET)
    written(tmp_path / "0.parquet", {**IMG2DATASET, "jpg": [b"x", b"y", b"z"]})

    with pytest.raises(ShardError, match="is not the file that was indexed"):
        next(shard.read(0, 1))


def test_a_whole_table_without_rows_is_a_shard_of_no_samples(tmp_path):
    """As an intact tar of no members is."""
    shard = written(tmp_path / "0.parquet", {"jpg": pa.array([], pa.binary())})

    assert (shard.samples, shard.damage, read_all(shard)) == (0, "", [])


@pytest.mark.parametrize("name", ["caption", "captions"])
@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.large_list(pa.large_string())])
def test_of_several_captions_the_first_is_the_samples_and_all_are_kept(tmp_path, name, kind):
    texts = [["a dog", "a big dog"], [None, "a cat"], [], None]
    shard = written(tmp_path / "0.parquet", {"jpg": [b"x"] * 4, name: pa.array(texts, kind)})

    samples = read_all(shard)

    assert [sample.text for sample in samples] == ["a dog", "a cat", "", ""]
    assert [sample.text_status for sample in samples] == ["ok", "ok", "missing", "missing"]
    assert [texts_of(sample) for sample in samples] == [["a dog", "a big dog"], ["a cat"], [], []]


def test_a_list_of_captions_stands_behind_a_column_of_single_ones(tmp_path):
    shard = written(tmp_path / "0.parquet", {"jpg": [b"x"], "caption": [["a dog", "a cat"]], "text": ["a cow"]})

    (sample,) = read_all(shard)

    assert (sample.text, json.loads(sample.metadata)) == ("a cow", {"caption": ["a dog", "a cat"]})


def test_a_caption_of_several_that_is_not_utf8_costs_its_own_row_and_is_told(tmp_path):
    bad = pa.ListArray.from_arrays(pa.array([0, 1, 2]), pa.array([b"\xff", b"a dog"]).view(pa.string()))
    shard = written(tmp_path / "0.parquet", {"jpg": [b"x", b"y"], "caption": bad})

    assert [(sample.text, sample.error) for sample in read_all(shard)] == [
        ("", "caption cannot be read and is dropped (UnicodeDecodeError)"),
        ("a dog", ""),
    ]


def test_damage_of_the_footer_hides_no_row(tmp_path):
    """Whichever byte of the footer is wrong, or two that outweigh each other, a row is read or the file refused."""
    whole = written(tmp_path / "0.parquet", {"jpg": [b"x"] * 40}, row_group_size=20)
    data = (tmp_path / "0.parquet").read_bytes()

    def refusal(changes: dict[int, int]) -> str:
        damaged = bytearray(data)
        for at, by in changes.items():
            damaged[at] = (damaged[at] + by) % 256
        (tmp_path / "0.parquet").write_bytes(damaged)
        try:
            read_all(open_shard(whole.url))
        except ShardError as error:
            return str(error)
        return ""

    refusals = {at: refusal({at: 2}) for at in range(data.index(b"\x15", 4), len(data))}
    counts = [at for at, said in refusals.items() if "its row groups 41" in said]

    assert len(counts) == 2
    assert "row group 0 holds 20 rows, the footer says 21" in refusal({counts[0]: 2, counts[1]: -2})


def test_a_bomb_is_refused_by_its_footer(tmp_path):
    path = str(tmp_path / "0.parquet")
    pq.write_table(pa.table({"image": [b"x", bytes(100 << 20)]}), path, compression="zstd")

    with pytest.raises(ShardError, match=r"0\.parquet: row group 0 unpacks to 1048\d+ bytes, the file has \d+: not"):
        open_shard(path)
