-- Corrections of counted usage events, and the sweeps that look for what counted twice. Written by the console.

-- One row is one correction and its audit: who took what back, when, why, and what stands in its place. Never edited but for
-- refused_at, never deleted. The target is a raw row of the analytics store; before and after are CloudEvents as text, as
-- they stand in the control record, so that no driver touches their numbers.
CREATE TABLE correction (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  mode text NOT NULL CHECK (mode IN ('live', 'test')), -- of the service token that asked; a token corrects its own mode only
  customer_id text NOT NULL,
  source text NOT NULL,
  event_id text NOT NULL,
  stream integer NOT NULL,
  partition integer NOT NULL CHECK (partition >= 0),
  log_offset bigint NOT NULL CHECK (log_offset >= 0),
  kind text NOT NULL CHECK (kind IN ('void', 'replace')),
  reason text NOT NULL CHECK (char_length(reason) BETWEEN 1 AND 500),
  actor text NOT NULL CHECK (char_length(actor) BETWEEN 1 AND 100),
  event_before text NOT NULL,
  event_after text,
  replacement_customer_id text,
  replacement_source text,
  replacement_id text,
  created_at timestamptz NOT NULL,
  -- Set when the log had refused it and another one took its place: only then may one target have two rows.
  refused_at timestamptz,
  CHECK ((kind = 'replace') = (event_after IS NOT NULL)),
  CHECK ((kind = 'replace') = (replacement_id IS NOT NULL)),
  CHECK ((replacement_id IS NULL) = (replacement_customer_id IS NULL)),
  CHECK ((replacement_id IS NULL) = (replacement_source IS NULL))
);
-- Of two corrections at once one wins; the other sees it.
CREATE UNIQUE INDEX correction_of_target ON correction (stream, partition, log_offset) WHERE refused_at IS NULL;
-- Two replacements with one identity would be one usage event.
CREATE UNIQUE INDEX correction_replacement
  ON correction (mode, replacement_customer_id, replacement_source, replacement_id)
  WHERE replacement_id IS NOT NULL AND refused_at IS NULL;
CREATE INDEX correction_by_customer ON correction (mode, customer_id, id);

-- Looks for identities that counted more than once. due_at names a nightly one, so that several consoles make one row; it is
-- null when somebody asked for it. Unfinished rows are worked on by whoever sees them: a sweep may run twice, its voids cannot.
CREATE TABLE sweep (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  mode text NOT NULL CHECK (mode IN ('live', 'test')),
  due_at timestamptz,
  created_at timestamptz NOT NULL,
  finished_at timestamptz,
  repeated integer, -- identities with more than one usage event that still counted
  voided integer,   -- usage events taken back by this run
  left_over integer, -- of an older stream, where nothing can be taken back
  UNIQUE (mode, due_at),
  CHECK ((finished_at IS NULL) = (repeated IS NULL)),
  CHECK ((finished_at IS NULL) = (voided IS NULL)),
  CHECK ((finished_at IS NULL) = (left_over IS NULL))
);
CREATE INDEX sweep_waiting ON sweep (id) WHERE finished_at IS NULL;
