-- What was billed, for analysts: one row per line of a statement, and per line that an adjustment changed, with the difference. Sums
-- over a customer's period are therefore its newest figures. Written by the reporter after the statement is committed, again after a
-- crash: the key makes one row of equal ones.
--
-- meter is empty and meterVersion 0 for the fee, and for a line that a plan has no more. An adjustment's rows name the plan and meter
-- versions that rate the period now. No TTL: it is what the revenue of the past was.
CREATE TABLE IF NOT EXISTS rated_line (
  mode Enum8('live' = 1, 'test' = 2), customer String CODEC(ZSTD(1)),
  periodStart DateTime('UTC'), periodEnd DateTime('UTC'),
  statement String CODEC(ZSTD(1)), seq UInt32, line LowCardinality(String),
  kind Enum8('fee' = 1, 'usage' = 2), meter LowCardinality(String), meterVersion UInt16,
  plan LowCardinality(String), planVersion UInt32, currency LowCardinality(String),
  quantity Decimal(38, 9), billable Decimal(38, 9), amount Decimal(38, 9), -- amount: major units, rounded
  cutAt DateTime('UTC'), sealedAt DateTime64(3, 'UTC'))
ENGINE = ReplacingMergeTree
PARTITION BY toYear(periodEnd)
ORDER BY (mode, customer, periodStart, statement, line)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
  min_compressed_bytes_to_fsync_after_merge = 1, non_replicated_deduplication_window = 0;

-- The rows, each once: the columns of rated_line.
CREATE VIEW IF NOT EXISTS rated_lines AS SELECT * FROM rated_line FINAL;

-- Revenue by plan version and UTC month in which the period ended (its first day): mode, month, plan, planVersion, currency,
-- customers, fees, usage, amount. Amounts of different currencies are never added.
CREATE VIEW IF NOT EXISTS revenue_by_plan AS
SELECT mode, toStartOfMonth(periodEnd) AS month, plan, planVersion, currency, uniqExact(customer) AS customers,
  sumIf(l.amount, l.kind = 'fee') AS fees, sumIf(l.amount, l.kind = 'usage') AS usage, sum(l.amount) AS amount
FROM rated_lines AS l
GROUP BY mode, month, plan, planVersion, currency;

-- Revenue by meter, priced item and UTC month in which the period ended: mode, month, meter, line, currency, customers, quantity (as
-- counted), billable (what the price was applied to), amount.
CREATE VIEW IF NOT EXISTS revenue_by_meter AS
SELECT mode, toStartOfMonth(periodEnd) AS month, meter, line, currency, uniqExact(customer) AS customers,
  sum(l.quantity) AS quantity, sum(l.billable) AS billable, sum(l.amount) AS amount
FROM rated_lines AS l
WHERE kind = 'usage'
GROUP BY mode, month, meter, line, currency;

-- Revenue by the UTC day on which the period ended: mode, day, currency, customers, fees, usage, amount.
CREATE VIEW IF NOT EXISTS revenue_by_day AS
SELECT mode, toDate(periodEnd) AS day, currency, uniqExact(customer) AS customers,
  sumIf(l.amount, l.kind = 'fee') AS fees, sumIf(l.amount, l.kind = 'usage') AS usage, sum(l.amount) AS amount
FROM rated_lines AS l
GROUP BY mode, day, currency;
