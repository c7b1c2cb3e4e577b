import io
import tarfile

from hypothesis import given
from hypothesis import strategies as st

from capfilt.shards import write_tar

names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=200).filter(
    lambda n: n.strip("/") == n
)


@given(st.lists(st.tuples(names, st.binary(max_size=2000)), max_size=5))
def test_members_come_back_by_any_reader(members):
    file = io.BytesIO()
    write_tar(file, members)
    file.seek(0)

    with tarfile.open(fileobj=file) as tar:
        assert [(member.name, tar.extractfile(member).read()) for member in tar] == members


def test_the_same_members_give_the_same_bytes_in_a_file_and_in_memory(tmp_path):
    members = [("0.jpg", b"x"), ("фото.txt", b"y")]
    file = io.BytesIO()
    write_tar(file, iter(members))
    write_tar(tmp_path / "0.tar", members)
    write_tar(str(tmp_path / "1.tar"), members)

    assert (tmp_path / "0.tar").read_bytes() == (tmp_path / "1.tar").read_bytes() == file.getvalue()


def test_format_times_and_owners_are_fixed():
    file = io.BytesIO()
    write_tar(file, [("0.jpg", b"x")])
    assert file.getvalue()[257:265] == b"ustar\x0000"
    file.seek(0)

    with tarfile.open(fileobj=file) as tar:
        (member,) = tar.getmembers()

    assert (member.mtime, member.uid, member.gid, member.uname, member.mode) == (0, 0, 0, "", 0o644)
