-- The aggregator's tables and the views that everybody else reads.
--
-- Each statement ends with `;` at the end of a line and can be run again. Names are unqualified: they belong to the
-- connection's database. Every column of a sort or partition key comes from the record, never from a clock of ours,
-- so that a replay meets its own rows. D of the design (fsync, no deduplication window) stands in every table.

-- Every offset of the log, whatever its fate, and control records too: a missing offset is always a fault.
-- One row per (stream, logPartition, logOffset) after FINAL; copies are equal.
CREATE TABLE IF NOT EXISTS raw_events (
  stream UInt16, logPartition UInt16, logOffset UInt64 CODEC(Delta(8), ZSTD(1)),
  mode Enum8('none' = 0, 'live' = 1, 'test' = 2), -- none: undecodable or control
  customer String CODEC(ZSTD(1)), source LowCardinality(String), id String CODEC(ZSTD(1)),
  type LowCardinality(String),
  occurredAt DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)), -- outside 1970 to 2200: 1970
  receivedAt DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
  bookedAt DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),   -- the partition's log clock, which never steps back
  decidedAt DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
  status Enum8('counted' = 0, 'duplicate' = 1, 'conflict' = 2, 'too_late' = 3, 'too_early' = 4, 'invalid' = 5,
    'redirected' = 6, 'control' = 7),
  reason LowCardinality(String), payloadHash UInt64 CODEC(NONE), payload String CODEC(ZSTD(3)),
  INDEX by_id id TYPE bloom_filter(0.01) GRANULARITY 1)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMMDD(bookedAt)
PRIMARY KEY (mode, customer, type, toStartOfFifteenMinutes(occurredAt))
ORDER BY (mode, customer, type, toStartOfFifteenMinutes(occurredAt), stream, logPartition, logOffset)
TTL toDateTime(bookedAt) + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1, fsync_after_insert = 1, fsync_part_directory = 1,
  min_compressed_bytes_to_fsync_after_merge = 1, non_replicated_deduplication_window = 0;

-- One row per counted usage event: what the dedupe index is rebuilt from, a contiguous range per partition.
-- logOffset is in the key: without it a later acceptance by a zombie would merge the earlier one away.
-- 45 days: at least the dedupe horizon (35) + log retention (7) + 1.
CREATE TABLE IF NOT EXISTS identities (
  stream UInt16, logPartition UInt16, fpHigh UInt64 CODEC(NONE), fpLow UInt32 CODEC(NONE),
  logOffset UInt64 CODEC(Delta(8), ZSTD(1)), bookedAt DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
  payloadCheck UInt32 CODEC(NONE))
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMMDD(bookedAt)
ORDER BY (stream, logPartition, fpHigh, fpLow, logOffset)
TTL bookedAt + INTERVAL 45 DAY
SETTINGS ttl_only_drop_parts = 1, fsync_after_insert = 1, fsync_part_directory = 1,
  min_compressed_bytes_to_fsync_after_merge = 1, non_replicated_deduplication_window = 0;

-- Cumulative values: the row with the highest ver of a key states the fold of the partition's first ver records.
-- bookedStart in the key makes the table bitemporal: late usage never reopens an old row.
CREATE TABLE IF NOT EXISTS rollup (
  mode Enum8('live' = 1, 'test' = 2), customer String CODEC(ZSTD(1)), meter LowCardinality(String),
  meterVersion UInt16, windowStart DateTime('UTC') CODEC(Delta(4), ZSTD(1)), dims Array(String),
  stream UInt16, logPartition UInt16, lane UInt8, -- 0 live, 1 backfill
  bookedStart DateTime('UTC') CODEC(Delta(4), ZSTD(1)), ver UInt64 CODEC(Delta(8), ZSTD(1)),
  counted UInt64, voided UInt64, sumQty Decimal(38, 9),
  minQty Decimal(38, 9), maxQty Decimal(38, 9), -- valid where counted > 0
  lastQty Decimal(38, 9), lastAt DateTime64(3, 'UTC'), lastOffset UInt64)
ENGINE = ReplacingMergeTree(ver)
PARTITION BY toYYYYMM(bookedStart)
PRIMARY KEY (mode, customer, meter, meterVersion, windowStart)
ORDER BY (mode, customer, meter, meterVersion, windowStart, dims, stream, logPartition, lane, bookedStart)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
  min_compressed_bytes_to_fsync_after_merge = 1, non_replicated_deduplication_window = 0;

-- Meters and voids. No TTL: they are needed for ever. body: the record's value, signed in the log.
CREATE TABLE IF NOT EXISTS control_records (
  stream UInt16, logPartition UInt16, logOffset UInt64, bookedAt DateTime64(3, 'UTC'),
  kind LowCardinality(String), target String, body String)
ENGINE = ReplacingMergeTree
ORDER BY (stream, logPartition, logOffset)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
  min_compressed_bytes_to_fsync_after_merge = 1, non_replicated_deduplication_window = 0;

-- Where a restart resumes; the highest nextOffset wins. Written only after every row below it is acknowledged.
-- storedAt is the only wall clock in these tables and in no key.
CREATE TABLE IF NOT EXISTS progress (
  stream UInt16, logPartition UInt16, nextOffset UInt64, logClock DateTime64(3, 'UTC'),
  lastRecord UInt64, counted UInt64, writer String, storedAt DateTime64(3, 'UTC'))
ENGINE = ReplacingMergeTree(nextOffset)
ORDER BY (stream, logPartition)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
  min_compressed_bytes_to_fsync_after_merge = 1, non_replicated_deduplication_window = 0;

-- Which meter versions a partition has folded from its raw events.
CREATE TABLE IF NOT EXISTS backfills (
  stream UInt16, logPartition UInt16, mode Enum8('live' = 1, 'test' = 2),
  meter String, meterVersion UInt16, ver UInt64)
ENGINE = ReplacingMergeTree
ORDER BY (stream, logPartition, mode, meter, meterVersion)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
  min_compressed_bytes_to_fsync_after_merge = 1, non_replicated_deduplication_window = 0;

-- Usage as known at a cut (a booking window's start): SELECT … FROM usage_at(cut = '2026-11-01 00:00:00').
-- One row per customer, meter version, window and dims; the latest value is the one of the latest occurredAt, ties
-- broken by stream, partition and offset. A filter on mode, customer, meter, meterVersion, windowStart uses the key.
CREATE VIEW IF NOT EXISTS usage_at AS
SELECT mode, customer, meter, meterVersion, windowStart, dims,
  sum(r.counted) AS counted, sum(r.voided) AS voided, sum(r.sumQty) AS sumQty,
  minIf(r.minQty, r.counted > 0) AS minQty, maxIf(r.maxQty, r.counted > 0) AS maxQty,
  argMaxIf(r.lastQty, (r.lastAt, r.stream, r.logPartition, r.lastOffset), r.counted > 0) AS lastQty
FROM rollup AS r FINAL
WHERE r.bookedStart < {cut:DateTime('UTC')}
GROUP BY mode, customer, meter, meterVersion, windowStart, dims;

-- The same as known now.
CREATE VIEW IF NOT EXISTS usage AS
SELECT mode, customer, meter, meterVersion, windowStart, dims,
  sum(r.counted) AS counted, sum(r.voided) AS voided, sum(r.sumQty) AS sumQty,
  minIf(r.minQty, r.counted > 0) AS minQty, maxIf(r.maxQty, r.counted > 0) AS maxQty,
  argMaxIf(r.lastQty, (r.lastAt, r.stream, r.logPartition, r.lastOffset), r.counted > 0) AS lastQty
FROM rollup AS r FINAL
GROUP BY mode, customer, meter, meterVersion, windowStart, dims;

-- Additive meters per local day: SELECT … FROM usage_daily(timeZone = 'Asia/Kolkata'). Every zone in use is a
-- multiple of 15 minutes, so a local day is a whole number of windows.
CREATE VIEW IF NOT EXISTS usage_daily AS
SELECT mode, customer, meter, meterVersion, toDate(windowStart, {timeZone:String}) AS localDay, dims,
  sum(counted) - sum(voided) AS events, sum(sumQty) AS quantity
FROM usage
GROUP BY mode, customer, meter, meterVersion, localDay, dims;

-- Usage with its dimensions by name, for people: the names stand in the meter's activation, in the order of dims.
CREATE VIEW IF NOT EXISTS usage_named AS
SELECT u.*, mapFromArrays(m.names, u.dims) AS dimensions
FROM usage AS u
ANY INNER JOIN (
  SELECT JSONExtractString(body, 'mode') AS modeName, JSONExtractString(body, 'meter') AS meterKey,
    JSONExtractUInt(body, 'version') AS version, JSONExtractKeys(body, 'rule', 'dimensions') AS names
  FROM control_records
  WHERE kind = 'meter.activate') AS m
ON m.modeName = toString(u.mode) AND m.meterKey = u.meter AND m.version = u.meterVersion;

-- Deduplicated raw events less the voided ones: the other road to every number.
CREATE VIEW IF NOT EXISTS counted_events AS
SELECT e.* FROM raw_events AS e FINAL
LEFT ANTI JOIN (SELECT stream, logPartition, target FROM control_records WHERE kind IN ('void', 'replace')) AS v
  ON v.stream = e.stream AND v.logPartition = e.logPartition AND v.target = toString(e.logOffset)
WHERE e.status = 'counted';
