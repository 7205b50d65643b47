-- When a version is to stop counting: usage that occurred at or after it is not the version's any more. null: no end is wanted.
-- Whether the log took the end says control_records of the analytics store; the console sends it again while it did not.
ALTER TABLE meter_version ADD COLUMN ends_at timestamptz;
