import os
from pathlib import Path

import fsspec
import pytest

from capfilt.errors import ConfigError
from capfilt.shards import find_shards


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("00000.tar", "00001.tar", "00002.tgz", "00000.parquet", "00000_stats.json", "list.csv"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def names(inputs, folder) -> list[str]:
    return [Path(path).name for path in find_shards([f"{folder}/{given}" for given in inputs])]


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ([""], ["00000.tar", "00001.tar", "00002.tgz"]),
        (["00001.tar"], ["00001.tar"]),
        (["*.tar"], ["00000.tar", "00001.tar"]),
        (["*"], ["00000.parquet", "00000.tar", "00001.tar", "00002.tgz", "list.csv"]),
        (["{00000..00001}.tar"], ["00000.tar", "00001.tar"]),
        (["{00001..00001}.tar"], ["00001.tar"]),
        (["0000{0,1}.tar", "00001.tar"], ["00000.tar", "00001.tar"]),
        (["0000{0..1}.t{ar,ar}"], ["00000.tar", "00001.tar"]),
        (["list.csv"], ["list.csv"]),
    ],
)
def test_inputs_expand_to_shards_in_order_and_each_once(folder, inputs, expected):
    assert names(inputs, folder) == expected


def test_a_shard_is_taken_once_by_whatever_paths_the_inputs_call_it(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    paths = [
        folder.name,
        f"./{folder.name}/",
        str(folder),
        f"{folder}/*.tar",
        folder.as_uri(),
        f"file://{folder}/*.tgz",
    ]

    assert [Path(path).name for path in find_shards(paths)] == ["00000.tar", "00001.tar", "00002.tgz"]


@pytest.mark.parametrize("again", ["link", "in/../in", "link/../in/*.tar", "in/{0,0}.tar", "link/0.tar"])
def test_a_shard_that_is_named_again_by_another_path_is_taken_once_and_told(tmp_path, caplog, again):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/0.tar").write_bytes(b"x")
    (tmp_path / "link").symlink_to("in")

    assert names(["in", again], tmp_path) == ["0.tar"]

    told = [f"input: 1 shard named again by another path, and taken once: {tmp_path}/"]
    assert [message[: len(told[0])] for message in caplog.messages] == told * ("{" not in again)


def test_links_to_one_file_by_several_names_are_several_shards(tmp_path, caplog):
    (tmp_path / "0.tar").write_bytes(b"x")
    (tmp_path / "1.tar").symlink_to("0.tar")

    assert names([""], tmp_path) == ["0.tar", "1.tar"]
    assert not caplog.messages


def test_a_folder_without_tars_gives_its_parquet_files_and_then_its_lists(folder):
    for path in folder.glob("*.t*"):
        path.unlink()
    assert names([""], folder) == ["00000.parquet"]
    (folder / "00000.parquet").unlink()
    assert names([""], folder) == ["list.csv"]


@pytest.mark.parametrize("given", ["nowhere", "nowhere.tar", "*.zip", "00000_stats.json"])
def test_an_input_that_matches_nothing_is_an_error(folder, given):
    with pytest.raises(ConfigError, match="matches no shard"):
        names(["00000.tar", given], folder)


@pytest.mark.parametrize("given", ["", " ", "{0.tar,}"])
def test_an_empty_input_is_not_the_current_folder(folder, monkeypatch, given):
    monkeypatch.chdir(folder)

    with pytest.raises(ConfigError, match="is empty, as an unset variable of the shell makes it"):
        find_shards([given])


@pytest.fixture
def tree(tmp_path) -> Path:
    """Return a folder of folders of shards."""
    for name in (
        "in/a/0.tar",
        "in/b/1.tar",
        "in/b/1.json",
        "in/c/2.parquet",
        "in/br[ack]et/3.tar",
        "in/quest?ion/4.tar",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("in/{a,b}", ["0.tar", "1.tar"]),
        ("in/{a,b}/*.tar", ["0.tar", "1.tar"]),
        ("in/{a/0.tar,b,[c]}", ["0.tar", "1.tar", "2.parquet"]),
        ("{i,i}n/[ab]", ["0.tar", "1.tar"]),
        ("in/[abc]", ["0.tar", "1.tar", "2.parquet"]),
        ("in/br[ack]et", ["3.tar"]),
        ("in/quest?ion", ["4.tar"]),
        ("in/{br[ack]et,quest?ion}", ["3.tar", "4.tar"]),
        ("in/br[ack]et/{3,3}.tar", ["3.tar"]),
    ],
)
def test_braces_come_first_and_each_name_is_a_file_a_folder_or_a_glob(tree, given, expected):
    assert names([given], tree) == expected


def test_a_folder_that_is_called_like_braces_is_found(tmp_path):
    (tmp_path / "{a,b}").mkdir()
    (tmp_path / "{a,b}/0.tar").write_bytes(b"x")

    assert names(["{a,b}"], tmp_path) == ["0.tar"]


def test_a_glob_that_matches_shards_and_folders_means_the_shards(tree):
    (tree / "in/5.tar").write_bytes(b"x")

    assert names(["in/*"], tree) == ["5.tar"]


def test_a_name_of_braces_that_matches_nothing_is_told(tree):
    with pytest.raises(
        ConfigError, match=r"input: \S+/in/d, of \S+/in/\{a,d\}, matches no shard; give a file whose name"
    ):
        names(["in/{a,d}"], tree)


@pytest.mark.parametrize("given", ["", "*"])
def test_shards_whose_names_are_not_read_are_told_beside_those_that_are(tmp_path, caplog, given):
    for name in ("0.tar", "1.TAR", "v1.2.tar.zst", "0.parquet", "0.tar.md5", "0_stats.json"):
        (tmp_path / name).write_bytes(b"x")

    found = names([given], tmp_path)

    assert found == ["0.parquet"] * bool(given) + ["0.tar"]
    (told,) = caplog.messages
    assert "left out, since names of shards end in .tar, .tar.gz, .tgz, .parquet, .csv, .tsv or .jsonl" in told
    assert all(name in told for name in ("1.TAR", "v1.2.tar.zst"))
    assert "md5" not in told


def test_an_array_of_annotations_is_answered_with_what_to_make_of_it(tmp_path):
    (tmp_path / "llava.json").write_text("[]")

    with pytest.raises(ConfigError, match=r"llava\.json matches no shard; write its entries as the lines of a \.jsonl"):
        names(["llava.json"], tmp_path)


@pytest.mark.parametrize("given", ["", "A.TAR", "b.tar.bz2", "c.txt"])
def test_what_is_read_is_told_of_files_that_are_not(tmp_path, given):
    for name in ("A.TAR", "b.tar.bz2", "c.txt", "d.txt"):
        (tmp_path / name).write_bytes(b"x")

    with pytest.raises(ConfigError) as caught:
        names([given], tmp_path)

    assert str(caught.value).endswith(
        "matches no shard"
        + "; it holds A.TAR, b.tar.bz2, c.txt, ..." * (not given)
        + "; give a file whose name ends in "
        ".tar, .tar.gz, .tgz, .parquet, .csv, .tsv or .jsonl, in small letters, a folder of such files, or a glob"
    )


def test_a_folder_of_folders_of_shards_is_answered_with_those_to_choose_from(tmp_path):
    for policy in ("default-c0ffee", "strict-decade"):
        (tmp_path / "clean" / policy).mkdir(parents=True)
        (tmp_path / "clean" / policy / "0.tar").write_bytes(b"x")

    with pytest.raises(ConfigError, match=r"clean matches no shard; it holds default-c0ffee/, strict-decade/; give"):
        names(["clean"], tmp_path)


def test_a_folder_of_image_files_is_answered_with_what_to_make_of_them(tmp_path):
    for name in ("0.JPG", "0.txt"):
        (tmp_path / name).write_bytes(b"x")

    with pytest.raises(ConfigError, match=r"it holds 0\.JPG, 0\.txt; pack the images with their texts as tars"):
        names([""], tmp_path)


def test_a_shard_that_is_not_there_is_told_without_a_word_on_its_ending(tmp_path):
    with pytest.raises(ConfigError, match=r"0\.tar matches no shard; there is no such file$"):
        names(["0.tar"], tmp_path)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("in", "in ({here}/in) matches no shard"),
        ("{a,b}/*.tar", "a/*.tar ({here}/a/*.tar), of {{a,b}}/*.tar, matches no shard"),
        ("in/{0..9}.tar", "in/{{0..9}}.tar names 10 files, 10 missing, first in/0.tar ({here}/in/0.tar)"),
    ],
)
def test_a_relative_name_is_told_with_the_folder_in_which_it_is_looked_for(tmp_path, monkeypatch, given, told):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        find_shards([given])

    assert str(caught.value).startswith(f"input: {told.format(here=tmp_path)}; ")


def test_a_message_names_the_key_that_the_inputs_stand_under(tmp_path):
    with pytest.raises(ConfigError, match=r"^data\.shards: \S+ matches no shard"):
        find_shards([str(tmp_path)], "data.shards")


def test_the_folder_of_a_run_is_answered_with_its_clean_shards(tmp_path):
    (tmp_path / "run.yaml").touch()
    (tmp_path / "journal.jsonl").write_text("{}")
    with pytest.raises(
        ConfigError, match=r"is the folder of a run; its clean shards are in \S+/clean, when it is done"
    ):
        names([""], tmp_path)

    (tmp_path / "clean/default-c0ffee").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"its clean shards are in \S+/clean/default-c0ffee"):
        names([""], tmp_path)


def test_a_name_that_is_not_utf8_and_that_no_table_could_hold_is_refused(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.tar")).write_bytes(b"x")

    with pytest.raises(ConfigError, match=r"caf\\udce9\.tar is not valid UTF-8; rename the file"):
        names([""], tmp_path)


def test_nor_is_a_folder_of_such_a_name_to_which_a_path_is_relative(tmp_path, monkeypatch):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    (folder / "0.tar").write_bytes(b"x")
    monkeypatch.chdir(folder)

    with pytest.raises(ConfigError, match=r"/caf\\udce9/0\.tar is not valid UTF-8; rename the file, or its folder"):
        find_shards(["0.tar"])


def test_a_gap_in_a_range_is_an_error_that_names_the_first(folder):
    with pytest.raises(ConfigError, match=r"names 4 files, 2 missing, first \S+00002\.tar; narrow"):
        names(["{00000..00003}.tar"], folder)


@pytest.mark.parametrize("given", ["{9..0}.tar", "{0..99999999999}.tar"])
def test_a_range_without_sense_is_an_error(folder, given):
    with pytest.raises(ConfigError, match="the range"):
        names([given], folder)


def test_urls_are_listed_as_folders_are():
    store = fsspec.filesystem("memory")
    for name in ("a/0.tar", "a/1.tar"):
        store.pipe_file(f"/found/{name}", b"x")

    assert find_shards(["memory://found/a"]) == ["memory://found/a/0.tar", "memory://found/a/1.tar"]
    assert find_shards(["memory://found/a/{0..1}.tar"]) == ["memory://found/a/0.tar", "memory://found/a/1.tar"]
    for given in ("memory://found/*/*.tar", "memory://found/*", "memory://found/{a,a}", "memory://{found,found}/*"):
        assert [path.rpartition("/")[2] for path in find_shards([given])] == ["0.tar", "1.tar"]
