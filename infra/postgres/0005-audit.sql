-- Results of audits; written by services/console only. One row per audit, the newest last.
--
-- scheduled_for: the UTC day whose daily audit it is, null for one that an operator asked for. Unique, so that of several
-- consoles the one whose insert comes first runs it. A console that dies leaves its row `running`; after a while another
-- takes the row over by a new started_at, and the first, if it lives after all, no longer finds its own.
CREATE TABLE audit (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  scheduled_for date UNIQUE,
  wanted json NOT NULL,       -- the checks that were asked for
  state text NOT NULL CHECK (state IN ('running', 'clean', 'differs', 'failed')),
  started_at timestamptz NOT NULL,
  finished_at timestamptz,
  cut json,                   -- partition → next offset: records below it were judged
  checks json,                -- per check: rows, differences, seconds, first examples, statement
  failure text,               -- why it could not run to its end
  CHECK ((state = 'running') = (finished_at IS NULL)),
  CHECK ((state IN ('clean', 'differs')) = (checks IS NOT NULL))
);
