-- What is sold: versions of plans, of the list of endpoints, and of bundles. Written by the console.

-- Never edited, never deleted: bills of the past are rated by these rows. A version is made when the content's digest differs from
-- the newest one's; a content that comes back after another is a new version, because periods are rated by when a version was applied.
-- body is json, not jsonb: jsonb reorders keys, and the order of a plan's items is the order of a bill's lines.
CREATE TABLE catalogue_version (
  mode text NOT NULL CHECK (mode IN ('live', 'test')),
  kind text NOT NULL CHECK (kind IN ('plan', 'endpoints', 'bundle')),
  key text NOT NULL, -- of the plan or bundle; 'endpoints' for the list
  version integer NOT NULL CHECK (version >= 1),
  digest text NOT NULL CHECK (digest ~ '^[0-9a-f]{64}$'),
  body json NOT NULL, -- of a plan: {"plan": …, "meterVersions": …}; else the content itself
  created_at timestamptz NOT NULL,
  created_by text NOT NULL,
  PRIMARY KEY (mode, kind, key, version)
);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% of % is refused: its rows never change', TG_OP, TG_TABLE_NAME;
END
$$;
CREATE TRIGGER catalogue_version_is_final BEFORE UPDATE OR DELETE ON catalogue_version
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
