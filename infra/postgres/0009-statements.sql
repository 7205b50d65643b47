-- Statements of closed periods and their adjustments; written by services/reporter, read through packages/billing. What an operator asks
-- to be rated anew is written by the console.

-- One row is one statement, for ever. seq 0 is the period's statement, seq n its n-th adjustment: the whole period counted and rated
-- anew, with the difference to the row before it. id is a function of mode, customer, period and seq, so a crash repeats a row and
-- never makes a second one. body is the canonical document; json and not jsonb, because the digest is made of its very text.
CREATE TABLE statement (
  id text PRIMARY KEY,
  mode text NOT NULL CHECK (mode IN ('live', 'test')),
  customer_id text NOT NULL,
  seq integer NOT NULL CHECK (seq >= 0),
  period_start timestamptz NOT NULL,
  period_end timestamptz NOT NULL CHECK (period_end > period_start),
  plan_key text NOT NULL,
  plan_version integer NOT NULL,
  contract_version integer,
  currency text NOT NULL,
  cut_at timestamptz NOT NULL,
  total numeric NOT NULL, -- of the whole period as known at the cut, in major units of the currency
  body json NOT NULL,
  digest text NOT NULL CONSTRAINT statement_has_its_digest CHECK (digest = encode(sha256(convert_to(body::text, 'UTF8')), 'hex')),
  sealed_at timestamptz NOT NULL,
  lined_at timestamptz, -- when its lines were acknowledged by the analytics store
  UNIQUE (mode, customer_id, period_start, seq)
);
-- Few rows, found without reading the rest.
CREATE INDEX statement_not_lined ON statement (sealed_at, id) WHERE lined_at IS NULL;

-- What was billed stays as it was billed: a change is an adjustment.
CREATE FUNCTION statement_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'a statement is never changed or deleted: %', OLD.id;
END $$;
CREATE TRIGGER statement_is_never_changed
  BEFORE DELETE OR UPDATE OF id, mode, customer_id, seq, period_start, period_end, plan_key, plan_version, contract_version,
    currency, cut_at, total, body, digest, sealed_at
  ON statement FOR EACH ROW EXECUTE FUNCTION statement_stays();

-- Closed periods that are to be rated anew. Without a reason: usage of the period changed after its cut. With one: an operator asked,
-- perhaps for another plan version or other meter versions. Finished in the transaction that writes the adjustment.
CREATE TABLE rerate (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  statement_id text NOT NULL REFERENCES statement (id), -- the one with seq 0
  plan_key text,
  plan_version integer,
  meter_versions json, -- meter → version; null: as in the period's newest statement
  reason text CHECK (char_length(reason) BETWEEN 1 AND 500),
  actor text CHECK (char_length(actor) BETWEEN 1 AND 100),
  created_at timestamptz NOT NULL,
  done_at timestamptz,
  adjustment_id text REFERENCES statement (id), -- null when nothing changed
  refusal text,
  CHECK ((plan_key IS NULL) = (plan_version IS NULL)),
  CHECK ((reason IS NULL) = (actor IS NULL)),
  CHECK (reason IS NOT NULL OR (plan_key IS NULL AND meter_versions IS NULL)),
  CHECK (done_at IS NOT NULL OR (adjustment_id IS NULL AND refusal IS NULL))
);
-- A statement waits at most once for each of the two.
CREATE UNIQUE INDEX rerate_waiting ON rerate (statement_id, (reason IS NULL)) WHERE done_at IS NULL;
CREATE INDEX rerate_by_statement ON rerate (statement_id, id);

-- How far usage booked after a cut was looked for: everything booked before looked_to stands in `rerate` or changed no closed period.
CREATE TABLE statement_look (
  mode text PRIMARY KEY CHECK (mode IN ('live', 'test')),
  looked_to timestamptz NOT NULL
);
