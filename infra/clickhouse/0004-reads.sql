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
CREATE VIEW IF NOT EXISTS usage_unique AS
SELECT DISTINCT u.mode AS mode, u.customer AS customer, u.meter AS meter, u.meterVersion AS meterVersion,
  u.windowStart AS windowStart, u.dims AS dims, u.valueHash AS valueHash,
  (u.mode, u.customer, u.meter, u.meterVersion, u.windowStart) IN (
    SELECT mode, customer, meter, meterVersion, windowStart FROM rollup WHERE voided > 0) AS hasVoids
FROM rollup_uniq AS u;

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
