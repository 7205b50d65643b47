-- Customers: who they are, which plan they are on from when, what they have otherwise than the plan says, and who changed what.
-- Written by services/console; unbilled and unbilled_state by services/reporter.

-- One row per customer and mode. The id is opaque and the one that usage events carry; name and contacts are personal data and stand
-- nowhere else but in the audit log. billing: null means what the plan says.
CREATE TABLE customer (
  mode text NOT NULL CHECK (mode IN ('live', 'test')),
  customer_id text NOT NULL CHECK (char_length(customer_id) BETWEEN 1 AND 256),
  name text NOT NULL,
  zone text NOT NULL, -- IANA name, for days in what the customer sees; periods are counted in UTC
  billing text CHECK (billing IN ('stripe', 'none')),
  created_at timestamptz NOT NULL,
  created_by text NOT NULL,
  PRIMARY KEY (mode, customer_id)
);
CREATE INDEX customer_by_name ON customer (mode, lower(name) text_pattern_ops);

CREATE TABLE customer_contact (
  mode text NOT NULL,
  customer_id text NOT NULL,
  kind text NOT NULL CHECK (kind IN ('billing', 'technical')),
  name text,
  email text NOT NULL,
  PRIMARY KEY (mode, customer_id, kind, email),
  FOREIGN KEY (mode, customer_id) REFERENCES customer
);

-- From effective_at on the customer is on the plan; null: on none. Rows are never edited but for superseded_at: a later decision takes
-- the place of one whose time had not come. Those that hold have superseded_at null, and are one per instant.
CREATE TABLE customer_assignment (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  mode text NOT NULL,
  customer_id text NOT NULL,
  effective_at timestamptz NOT NULL,
  plan_key text,
  anchor_at timestamptz NOT NULL, -- months and years are counted from it
  decided_at timestamptz NOT NULL,
  actor text NOT NULL,
  reason text NOT NULL,
  superseded_at timestamptz,
  FOREIGN KEY (mode, customer_id) REFERENCES customer
);
-- What tells rows apart stands first: a planner without statistics takes an index that begins with mode for as good as any (0006).
CREATE UNIQUE INDEX customer_assignment_holds ON customer_assignment (customer_id, mode, effective_at)
  WHERE superseded_at IS NULL;
CREATE INDEX customer_assignment_by_customer ON customer_assignment (customer_id, mode, id);
-- Who is on a plan: before one is taken away.
CREATE INDEX customer_assignment_by_plan ON customer_assignment (plan_key) WHERE superseded_at IS NULL;

-- Fields of a plan that one customer has otherwise; a change is a new version. effective_at: the first period that begins at or after
-- it is rated by the version; 1970 where no period of the plan had begun. overrides is json: text that no driver reorders or rounds.
CREATE TABLE customer_contract (
  mode text NOT NULL,
  customer_id text NOT NULL,
  version integer NOT NULL CHECK (version >= 1),
  plan_key text NOT NULL,
  overrides json NOT NULL,
  meter_versions json NOT NULL, -- of the meters that its items name, as they were when it was stored
  effective_at timestamptz NOT NULL,
  created_at timestamptz NOT NULL,
  created_by text NOT NULL,
  reason text NOT NULL,
  PRIMARY KEY (mode, customer_id, version),
  FOREIGN KEY (mode, customer_id) REFERENCES customer
);

-- One row per change of a customer, contract, assignment or plan, written in the change's own transaction. before is null for what
-- is new, after for what is gone.
CREATE TABLE admin_audit (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at timestamptz NOT NULL,
  mode text NOT NULL CHECK (mode IN ('live', 'test')),
  actor text NOT NULL CHECK (char_length(actor) BETWEEN 1 AND 100),
  action text NOT NULL,
  subject_kind text NOT NULL,
  subject_id text NOT NULL,
  before json,
  after json,
  reason text NOT NULL CHECK (char_length(reason) BETWEEN 1 AND 500)
);
CREATE INDEX admin_audit_by_subject ON admin_audit (mode, subject_kind, subject_id, id);
CREATE INDEX admin_audit_by_mode ON admin_audit (mode, id);

-- An audit that its own writer could edit proves nothing. Erasure of a person's data disables the trigger for its own transaction.
CREATE TRIGGER admin_audit_is_final BEFORE UPDATE OR DELETE ON admin_audit
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER customer_contract_is_final BEFORE UPDATE OR DELETE ON customer_contract
  FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- Usage that no plan covers, one row per customer and gap: gap_at is where the time without a plan begins (1970 before the first
-- assignment). [first_at, last_at) reaches from the first window with usage to the end of the last one. Whether the customer exists
-- is not kept here: the reader asks `customer`.
CREATE TABLE unbilled (
  mode text NOT NULL CHECK (mode IN ('live', 'test')),
  customer_id text NOT NULL,
  gap_at timestamptz NOT NULL,
  first_at timestamptz NOT NULL,
  last_at timestamptz NOT NULL,
  PRIMARY KEY (mode, customer_id, gap_at)
);

-- Where the next look for such usage begins: every rollup row with bookedStart before it was looked at.
CREATE TABLE unbilled_state (
  mode text PRIMARY KEY CHECK (mode IN ('live', 'test')),
  changed_since timestamptz NOT NULL
);
