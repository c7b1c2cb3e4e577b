"""Strict reading and writing of shards: nothing in a file is lost without a word."""

from capfilt.shards.find import find_shards
from capfilt.shards.reader import ShardReader, open_shard, told
from capfilt.shards.write import write_tar

__all__ = ["ShardReader", "find_shards", "open_shard", "told", "write_tar"]
