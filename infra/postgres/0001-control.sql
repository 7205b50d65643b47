-- Service tokens, meter versions, and the outbox that carries control records into the log.
--
-- Applied as one implicit transaction: a file holds no BEGIN or COMMIT.

-- The operator's credentials. Only the hash is kept: HMAC-SHA-256(pepper, SHA-256(token)); the pepper is not in here.
CREATE TABLE service_token (
  token_hash bytea PRIMARY KEY CHECK (octet_length(token_hash) = 32),
  mode text NOT NULL CHECK (mode IN ('live', 'test')),
  created_at timestamptz NOT NULL,
  revoked_at timestamptz
);

-- Immutable versions of meters: any change but of the unit's text is a new one, and a digest stands once per meter.
-- rule is json, not jsonb: jsonb reorders keys, and the order of a meter's dimensions is the order of its dims.
CREATE TABLE meter_version (
  mode text NOT NULL CHECK (mode IN ('live', 'test')),
  key text NOT NULL,
  version integer NOT NULL CHECK (version BETWEEN 1 AND 65535), -- UInt16 in ClickHouse
  digest text NOT NULL,
  rule json NOT NULL,
  unit text NOT NULL,
  active_from timestamptz NOT NULL,
  created_at timestamptz NOT NULL,
  created_by text NOT NULL,
  PRIMARY KEY (mode, key, version),
  UNIQUE (mode, key, digest)
);

-- Control records to append to the log, one row per partition, in the order of id; the console drains it and sets
-- appended_at after the log has acknowledged. A crash in between appends the record again, which is a no-op there.
-- body is json for the same reason as rule.
CREATE TABLE control_outbox (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  stream integer NOT NULL,
  partition integer NOT NULL CHECK (partition >= 0),
  kind text NOT NULL,
  body json NOT NULL,
  created_at timestamptz NOT NULL,
  appended_at timestamptz
);

-- What is still to be appended: few rows, found without reading the rest.
CREATE INDEX control_outbox_waiting ON control_outbox (id) WHERE appended_at IS NULL;
