"""A table in memory and back."""

import subprocess
import sys

import pyarrow as pa
import pytest

from capfilt.parquet import parquet_bytes, read_parquet

_THREADS = """
import os
import pyarrow as pa
from capfilt.parquet import parquet_bytes, read_parquet

data = parquet_bytes(pa.table({"a": [1, 2]}))
before = len(os.listdir("/proc/self/task"))
read_parquet(data)
print(len(os.listdir("/proc/self/task")) - before)
"""


def test_a_table_comes_back_as_it_was_and_so_do_some_of_its_columns():
    table = pa.table({"a": [1, 2], "b": ["x", None]}).replace_schema_metadata({"schema": "7"})

    found = read_parquet(parquet_bytes(table))

    assert found.equals(table, check_metadata=True)
    assert read_parquet(parquet_bytes(table), ["b"]).equals(table.select(["b"]))


def test_a_changed_byte_of_a_page_is_an_error():
    data = bytearray(parquet_bytes(pa.table({"a": ["blue", "red"]}).replace_schema_metadata({"a": "b" * 500})))
    data[data.index(b"blue")] ^= 1  # zstd keeps so short a text as it is

    with pytest.raises(OSError, match="CRC"):
        read_parquet(bytes(data))


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_no_thread_is_left_that_could_abort_the_process_when_it_ends():
    done = subprocess.run([sys.executable, "-c", _THREADS], capture_output=True, text=True, check=True)

    assert done.stdout == "0\n"
