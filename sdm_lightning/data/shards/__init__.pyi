from .index import Shard as Shard
from .index import ShardIndex as ShardIndex
from .indexing import index_shards as index_shards
from .packing import pack_shards as pack_shards
from .reading import RawSample as RawSample
from .reading import ShardReader as ShardReader
