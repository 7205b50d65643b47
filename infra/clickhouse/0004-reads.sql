-- Views for reads that respect corrections. docs/analytics.md shows how to ask them.

-- Counted usage events as known at a cut (a booking window's start): SELECT … FROM counted_events_at(cut = '2026-11-01 00:00:00').
-- Booked before it, less those whose void or replacement was booked before it. A filter on mode, customer, type and occurredAt
-- reaches the primary key of raw_events; of control_records every void is looked at, without its body.
CREATE VIEW IF NOT EXISTS counted_events_at AS
SELECT e.* FROM raw_events AS e FINAL
LEFT ANTI JOIN (
  SELECT stream, logPartition, target FROM control_records
  WHERE kind IN ('void', 'replace') AND bookedAt < {cut:DateTime('UTC')}) AS v
  ON v.stream = e.stream AND v.logPartition = e.logPartition AND v.target = toString(e.logOffset)
WHERE e.status = 'counted' AND e.bookedAt < {cut:DateTime('UTC')};

-- The different values of unique_count meters: one row per customer, meter version, window, dims and value, the value as a hash.
-- uniqExact(valueHash) over any span is the number of different values in it. mode, customer, meter, meterVersion, windowStart, dims,
-- valueHash, and hasVoids: 1 where a usage event of the customer's window was voided, so that a value may be one that no longer counts.
-- Grouped by the key's own columns, so that a filter on them reaches both tables.
CREATE VIEW IF NOT EXISTS usage_unique AS
SELECT mode, customer, meter, meterVersion, windowStart, value.1 AS dims, value.2 AS valueHash, hasVoids
FROM (
  SELECT mode, customer, meter, meterVersion, windowStart,
    groupUniqArrayIf((dims, valueHash), isVoid = 0) AS found, max(isVoid) AS hasVoids
  FROM (
    SELECT mode, customer, meter, meterVersion, windowStart, dims, valueHash, 0 AS isVoid FROM rollup_uniq
    UNION ALL
    SELECT mode, customer, meter, meterVersion, windowStart, dims, toUInt128(0) AS valueHash, 1 AS isVoid
    FROM rollup WHERE voided > 0)
  GROUP BY mode, customer, meter, meterVersion, windowStart)
ARRAY JOIN found AS value;

-- The view of 0002 with the end of a version: activeUntil, null without one. Several ends: the earliest.
CREATE OR REPLACE VIEW meters AS
SELECT JSONExtractString(body, 'mode') AS mode, JSONExtractString(body, 'meter') AS meter,
  toUInt16(JSONExtractUInt(body, 'version')) AS meterVersion,
  anyIf(JSONExtractString(body, 'rule', 'eventType'), kind = 'meter.activate') AS eventType,
  anyIf(JSONExtractString(body, 'rule', 'aggregation'), kind = 'meter.activate') AS aggregation,
  anyIf(JSONExtractString(body, 'rule', 'unit'), kind = 'meter.activate') AS unit,
  anyIf(JSONExtractKeys(body, 'rule', 'dimensions'), kind = 'meter.activate') AS dimensionNames,
  anyIf(JSONExtractString(body, 'rule', 'from'), kind = 'meter.activate') AS activeFrom,
  minOrNullIf(parseDateTime64BestEffortOrNull(JSONExtractString(body, 'until'), 3, 'UTC'), kind = 'meter.end') AS activeUntil
FROM control_records
WHERE kind IN ('meter.activate', 'meter.end')
GROUP BY mode, meter, meterVersion
HAVING countIf(kind = 'meter.activate') > 0;
