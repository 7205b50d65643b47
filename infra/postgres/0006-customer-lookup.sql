-- The same uniqueness, with the column that tells customers apart in front. A planner without statistics (PostgreSQL in the process
-- never gathers any, and a server has none of a table that was just filled) takes every column for a selective one: an index that
-- begins with mode and account then looks as good for finding a customer as the primary key, and is read whole for each.
ALTER TABLE stripe_customer_map
  DROP CONSTRAINT stripe_customer_map_mode_stripe_account_stripe_customer_id_key,
  ADD CONSTRAINT stripe_customer_map_by_stripe_customer UNIQUE (stripe_customer_id, stripe_account, mode);

-- What may be sent, in the order of sending. An hour's rows lie in few minutes: without id, each page would sort all of its minute anew.
-- As an expression, so that statements that name rows by id still find nothing but the primary key.
CREATE INDEX usage_report_unfinished_in_order ON usage_report (mode, stripe_account, event_ts, (id + 0))
  WHERE state IN ('planned', 'sending', 'unknown', 'rejected_sync', 'quarantined');
DROP INDEX usage_report_unfinished;
