-- Views for analysts, beside usage, usage_at, usage_daily and counted_events of 0001. docs/analytics.md
-- shows how to ask them; the column lists there and here agree.
--
-- `localDay` and `localMonth` follow the parameter timeZone, any IANA name; instants are UTC. A filter on mode and
-- customer, and on meter (rollup) or type (raw events), reaches the primary key of the table below.

-- Additive meters per local month: SELECT … FROM usage_monthly(timeZone = 'Europe/Berlin').
-- mode, customer, meter, meterVersion, localMonth (its first day), dims, events, quantity.
CREATE VIEW IF NOT EXISTS usage_monthly AS
SELECT mode, customer, meter, meterVersion, toStartOfMonth(toDate(windowStart, {timeZone:String})) AS localMonth, dims,
  sum(counted) - sum(voided) AS events, sum(sumQty) AS quantity
FROM usage
GROUP BY mode, customer, meter, meterVersion, localMonth, dims;

-- One row per meter version in use: what it counts, in which unit, with the names of dims in their order.
-- mode, meter, meterVersion, eventType, aggregation, unit, dimensionNames, activeFrom (text as in the meters file).
CREATE VIEW IF NOT EXISTS meters AS
SELECT JSONExtractString(body, 'mode') AS mode, JSONExtractString(body, 'meter') AS meter,
  toUInt16(JSONExtractUInt(body, 'version')) AS meterVersion,
  any(JSONExtractString(body, 'rule', 'eventType')) AS eventType,
  any(JSONExtractString(body, 'rule', 'aggregation')) AS aggregation,
  any(JSONExtractString(body, 'rule', 'unit')) AS unit,
  any(JSONExtractKeys(body, 'rule', 'dimensions')) AS dimensionNames,
  any(JSONExtractString(body, 'rule', 'from')) AS activeFrom
FROM control_records
WHERE kind = 'meter.activate'
GROUP BY mode, meter, meterVersion;

-- Usage with its dimensions by name. It replaces the one of 0001, whose ANY INNER JOIN kept one usage row for each meter
-- version: since ClickHouse 20 that join takes one row of each key from both sides.
-- The columns of usage, and dimensions, a map.
CREATE OR REPLACE VIEW usage_named AS
SELECT u.*, mapFromArrays(m.dimensionNames, u.dims) AS dimensions
FROM usage AS u
INNER JOIN meters AS m ON m.mode = toString(u.mode) AND m.meter = u.meter AND m.meterVersion = u.meterVersion;

-- What became of usage events, per customer, type and local day of booking: SELECT … FROM fates_daily(timeZone = 'UTC').
-- counted; late: those of them that were booked 15 minutes or more after they occurred; duplicates and conflicts of a
-- counted identity (not billed); tooLate, tooEarly and invalid (rejected); latestSeconds: the longest such delay.
-- Copies that a replay wrote twice are one. A correction does not change it: what was counted was counted.
CREATE VIEW IF NOT EXISTS fates_daily AS
SELECT mode, customer, type, toDate(bookedAt, {timeZone:String}) AS localDay,
  countIf(status = 'counted') AS counted,
  countIf(status = 'counted' AND bookedAt >= occurredAt + INTERVAL 15 MINUTE) AS late,
  countIf(status = 'duplicate') AS duplicates, countIf(status = 'conflict') AS conflicts,
  countIf(status = 'too_late') AS tooLate, countIf(status = 'too_early') AS tooEarly,
  countIf(status = 'invalid') AS invalid,
  greatest(0, maxIf(dateDiff('second', occurredAt, bookedAt), status = 'counted')) AS latestSeconds
FROM raw_events FINAL
WHERE status NOT IN ('redirected', 'control')
GROUP BY mode, customer, type, localDay;

-- Records that were refused after they were in the log, per local day of booking and reason:
-- SELECT … FROM rejected_daily(timeZone = 'UTC'). mode is none, and customer and type are empty, where the record could
-- not be read. What the gateway rejected is not in the log, so it is not here.
CREATE VIEW IF NOT EXISTS rejected_daily AS
SELECT mode, customer, type, toDate(bookedAt, {timeZone:String}) AS localDay, status, reason, count() AS records
FROM raw_events FINAL
WHERE status IN ('too_late', 'too_early', 'invalid')
GROUP BY mode, customer, type, localDay, status, reason;

-- Customers by usage within [since, before), whole windows: SELECT … FROM top_customers(since = '2026-11-01 00:00:00',
-- before = '2026-12-01 00:00:00') WHERE mode = 'live' AND meter = 'tokens' AND place <= 10. UTC.
-- mode, meter, customer, events, quantity (of all versions), place (1 is the largest; ties by name) and share of all
-- customers' quantity in percent, for reading only. For sum and count meters. A filter on customer comes after the
-- ranking, so filter on mode and meter.
CREATE VIEW IF NOT EXISTS top_customers AS
SELECT mode, meter, customer, events, quantity,
  row_number() OVER (PARTITION BY mode, meter ORDER BY quantity DESC, customer ASC) AS place,
  round(toFloat64(quantity) * 100 / nullIf(toFloat64(sum(quantity) OVER (PARTITION BY mode, meter)), 0), 2) AS share
FROM (
  SELECT mode, meter, customer, sum(counted) - sum(voided) AS events, sum(sumQty) AS quantity
  FROM usage
  WHERE windowStart >= {since:DateTime('UTC')} AND windowStart < {before:DateTime('UTC')}
  GROUP BY mode, meter, customer);

-- How far the figures reach, one row per stream. Everything that the log received before watermarkAt is in every view;
-- partitions must be the stream's number of partitions, else some have not reported yet and there is no watermark.
-- stream, partitions, watermarkAt, newestAt (of the partition that is furthest), counted (since the stream began),
-- storedAt (our own clock at the last flush).
CREATE VIEW IF NOT EXISTS freshness AS
SELECT stream, count() AS partitions, min(p.logClock) AS watermarkAt, max(p.logClock) AS newestAt,
  sum(p.counted) AS counted, max(p.storedAt) AS storedAt
FROM progress AS p FINAL
GROUP BY stream;
