-- The reporter's tables: what is mapped to Stripe, what was sent, what is waiting to be planned.
-- Written by services/reporter only; the console reads them.

-- One row per meter version (feed) and account. Journalled as 'creating' before Stripe is asked; 'refused' says why the
-- meter that Stripe has under our name cannot be used.
CREATE TABLE stripe_meter_map (
  mode text NOT NULL CHECK (mode IN ('live', 'test')),
  stripe_account text NOT NULL,
  feed_id text NOT NULL,
  meter text NOT NULL,
  meter_version integer NOT NULL,
  event_name text NOT NULL,
  stripe_meter_id text,
  state text NOT NULL CHECK (state IN ('creating', 'active', 'refused')),
  refusal text,
  idempotency_key text NOT NULL,
  key_epoch integer NOT NULL DEFAULT 0,
  created_at timestamptz NOT NULL,
  PRIMARY KEY (mode, stripe_account, feed_id),
  UNIQUE (mode, stripe_account, event_name),
  CHECK ((state = 'active') = (stripe_meter_id IS NOT NULL))
);

-- One row per customer and account. 'creating' rows are committed with their idempotency key before the call;
-- 'adopting' rows must look for their customer at Stripe before another is created.
CREATE TABLE stripe_customer_map (
  mode text NOT NULL CHECK (mode IN ('live', 'test')),
  stripe_account text NOT NULL,
  customer_id text NOT NULL,
  stripe_customer_id text,
  state text NOT NULL CHECK (state IN ('creating', 'adopting', 'active')),
  idempotency_key text NOT NULL,
  key_epoch integer NOT NULL DEFAULT 0,
  key_created_at timestamptz NOT NULL,
  created_at timestamptz NOT NULL,
  PRIMARY KEY (mode, stripe_account, customer_id),
  UNIQUE (mode, stripe_account, stripe_customer_id),
  CHECK ((state = 'active') = (stripe_customer_id IS NOT NULL))
);
CREATE INDEX stripe_customer_map_open ON stripe_customer_map (mode, stripe_account, customer_id) WHERE state <> 'active';

-- The ledger: one row is one immutable meter event. `quantity` is what it accounts for, `value` what is sent.
-- A UTC minute (event_ts) of a pair belongs to one row (seq 0), so a minute-wide summary at Stripe proves whether it was
-- counted; only a bucket with all 60 minutes taken shares its last minute (seq > 0).
CREATE TABLE usage_report (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  mode text NOT NULL CHECK (mode IN ('live', 'test')),
  stripe_account text NOT NULL,
  customer_id text NOT NULL,
  stripe_customer_id text NOT NULL,
  feed_id text NOT NULL,
  stripe_meter_id text NOT NULL,
  event_name text NOT NULL,
  formula text NOT NULL CHECK (formula IN ('sum', 'last')),
  period_start timestamptz NOT NULL,
  period_end timestamptz NOT NULL,
  bucket_start timestamptz NOT NULL,
  bucket_end timestamptz NOT NULL,
  kind text NOT NULL CHECK (kind IN ('usage', 'redated', 'carried', 'adopted')),
  accounts_at timestamptz NOT NULL,
  event_ts timestamptz NOT NULL,
  seq integer NOT NULL CHECK (seq >= 0),
  quantity numeric(38, 9) NOT NULL,
  value numeric(38, 9) NOT NULL,
  identifier text NOT NULL UNIQUE,
  idem_epoch integer NOT NULL DEFAULT 0,
  state text NOT NULL CHECK (state IN ('planned', 'sending', 'accepted', 'confirmed', 'unknown', 'rejected_sync',
    'rejected_async', 'quarantined', 'void', 'expired')),
  doubt_since timestamptz,
  refused_at timestamptz,
  first_attempt_at timestamptz,
  last_attempt_at timestamptz,
  accepted_at timestamptz,
  confirmed_at timestamptz,
  request_id text,
  error_code text,
  error_message text,
  -- What must be read at Stripe before this row may be sent again: 'none', 'check', then 'resend' (proven absent: send
  -- once more), then 'recheck' (Stripe called that one a duplicate).
  verify_step text NOT NULL DEFAULT 'none' CHECK (verify_step IN ('none', 'check', 'resend', 'recheck')),
  -- When a summary of its minute first lacked the row; two such readings, a gap apart, prove that it was not counted.
  verify_absent_at timestamptz,
  UNIQUE (mode, stripe_account, stripe_meter_id, stripe_customer_id, event_ts, seq)
);
CREATE INDEX usage_report_by_accounts_at
  ON usage_report (mode, stripe_account, stripe_meter_id, stripe_customer_id, accounts_at);
-- Everything below reads only unfinished rows; finished ones leave these indexes, which therefore stay small for ever.
-- Without id: statements that name rows by id must find nothing but the primary key.
CREATE INDEX usage_report_unfinished ON usage_report (mode, stripe_account, event_ts)
  WHERE state IN ('planned', 'sending', 'unknown', 'rejected_sync', 'quarantined');
CREATE INDEX usage_report_blocking ON usage_report (mode, stripe_account, stripe_meter_id, stripe_customer_id)
  WHERE state IN ('sending', 'unknown', 'rejected_sync', 'quarantined');

-- Buckets whose total may differ from what the ledger accounts for. Removed only together with the rows that settle them.
CREATE TABLE report_due (
  mode text NOT NULL CHECK (mode IN ('live', 'test')),
  stripe_account text NOT NULL,
  feed_id text NOT NULL,
  customer_id text NOT NULL,
  bucket_start timestamptz NOT NULL,
  bucket_end timestamptz NOT NULL,
  PRIMARY KEY (mode, stripe_account, feed_id, customer_id, bucket_start)
);

-- Where the next look for changed buckets begins: every rollup row with bookedStart before it is marked already.
CREATE TABLE reporter_state (
  mode text NOT NULL CHECK (mode IN ('live', 'test')),
  stripe_account text NOT NULL,
  changed_since timestamptz NOT NULL,
  PRIMARY KEY (mode, stripe_account)
);
