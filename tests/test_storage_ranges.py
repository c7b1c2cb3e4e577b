import io
import random

import pytest

from capfilt.storage.ranges import FIRST_BLOCK, LARGEST_BLOCK, NEAR, RangedFile

MB = 1 << 20


class Remote:
    """A file that notes which ranges it is asked for."""

    def __init__(self, size: int) -> None:
        self.data = random.Random(0).randbytes(min(size, MB)) * -(-size // MB)
        self.data = self.data[:size]
        self.asked: list[tuple[int, int]] = []

    def fetch(self, start: int, end: int) -> bytes:
        assert 0 <= start < end <= len(self.data)
        self.asked.append((start, end))
        return self.data[start:end]

    def open(self) -> RangedFile:
        return RangedFile(self.fetch, len(self.data))


@pytest.mark.parametrize("seed", range(20))
def test_any_reads_give_what_a_local_file_gives(seed):
    draw = random.Random(seed)
    remote = Remote(draw.choice([0, 1, 300_000, 5 * MB]))
    file, local = remote.open(), io.BytesIO(remote.data)

    for _ in range(60):
        if draw.random() < 0.5:
            offset = draw.randrange(len(remote.data) + 1000)
            assert file.seek(offset) == local.seek(offset)
        length = draw.choice([0, 1, 512, 70_000, 2 * MB])
        assert file.read(length) == local.read(length)
        assert file.tell() == local.tell()

    file.seek(0)
    assert file.read() == remote.data
    file.seek(0)
    assert file.read(None) == remote.data
    assert file.seek(-1, io.SEEK_END) == len(remote.data) - 1 or not remote.data


def test_readinto_fills_a_buffer():
    remote = Remote(10)
    buffer = bytearray(16)

    assert remote.open().readinto(buffer) == 10
    assert bytes(buffer[:10]) == remote.data


def test_reading_on_takes_few_requests_and_no_byte_twice():
    remote = Remote(100 * MB)
    file = remote.open()

    while file.read(100_000):
        pass

    assert len(remote.asked) == 8 + -(-(100 * MB) // LARGEST_BLOCK) - 2  # doubled from 64 KiB to 8 MiB, and on
    assert [start for start, _ in remote.asked[1:]] == [end for _, end in remote.asked[:-1]]


def test_looking_at_places_far_apart_takes_one_small_request_each():
    remote = Remote(100 * MB)
    file = remote.open()

    for offset in range(0, 100 * MB, 10 * MB):
        file.seek(offset)
        file.read(512)

    assert remote.asked == [(offset, offset + FIRST_BLOCK) for offset in range(0, 100 * MB, 10 * MB)]


def test_going_back_is_a_jump_too():
    remote = Remote(100 * MB)
    file = remote.open()
    while file.tell() < 20 * MB:
        file.read(100_000)
    del remote.asked[:]

    file.seek(MB)
    file.read(512)

    assert remote.asked == [(MB, MB + FIRST_BLOCK)]


def test_it_may_stand_where_a_local_file_is_expected():
    remote = Remote(10)

    with io.BufferedReader(remote.open()) as file:
        assert (file.read(3), file.seek(8), file.read()) == (remote.data[:3], 8, remote.data[8:])


def test_looking_at_places_close_together_reads_through():
    """As the headers of a tar of small images are: 1000 requests would take longer than the bytes between them."""
    remote = Remote(100 * MB)
    file = remote.open()

    for offset in range(0, 100 * MB, 100_000):
        file.seek(offset)
        file.read(512)

    assert len(remote.asked) < 30


def test_what_is_left_out_is_not_fetched():
    remote = Remote(4 * MB)
    file = remote.open()

    file.read(512)
    file.seek(FIRST_BLOCK + NEAR)
    file.read(512)

    assert remote.asked == [(0, FIRST_BLOCK), (FIRST_BLOCK + NEAR, 3 * FIRST_BLOCK + NEAR)]


def test_a_closed_file_is_not_read():
    file = Remote(10).open()
    file.close()

    with pytest.raises(ValueError, match="closed"):
        file.read()
