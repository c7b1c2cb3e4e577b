"""Strict reading and writing of shards: nothing in a file is lost silently."""

from capfilt.shards.find import find_shards
from capfilt.shards.reader import ShardReader, describe_damage, open_shard
from capfilt.shards.write import write_tar

__all__ = ["ShardReader", "describe_damage", "find_shards", "open_shard", "write_tar"]
