-- The texts that unique_count meters told apart, as hashes (domain's uniqueHashOf). A set: a row that is written twice is one row,
-- and its size over any span of windows is the number of different hashes. Rows of voided usage events stay: a window with voids is
-- answered from counted_events. bookedStart in the key keeps the table bitemporal, as in rollup.
CREATE TABLE IF NOT EXISTS rollup_uniq (
  mode Enum8('live' = 1, 'test' = 2), customer String CODEC(ZSTD(1)), meter LowCardinality(String),
  meterVersion UInt16, windowStart DateTime('UTC') CODEC(Delta(4), ZSTD(1)), dims Array(String),
  valueHash UInt128 CODEC(NONE), bookedStart DateTime('UTC') CODEC(Delta(4), ZSTD(1)))
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(bookedStart)
PRIMARY KEY (mode, customer, meter, meterVersion, windowStart)
ORDER BY (mode, customer, meter, meterVersion, windowStart, dims, valueHash, bookedStart)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
  min_compressed_bytes_to_fsync_after_merge = 1, non_replicated_deduplication_window = 0;
