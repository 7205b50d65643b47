/** Which versions of meters some period may still be rated by. */
import type { Mode, SqlRunner } from "@tallyhouse/domain";

/** A version of a meter that plans name. */
export interface MeterInUse {
  readonly meter: string;
  readonly version: number;
  /** Such as `pro@3`, in their order. */
  readonly plans: readonly string[];
}

/**
 * The newest version of each plan, and those that rate a period which began before their successor was applied: a period is at most
 * 31 days long, 366 where plan or a contract says year. Without a look at customers: an assignment may be dated back.
 */
export function readMetersInUse(store: SqlRunner, mode: Mode, now: number): Promise<MeterInUse[]> {
  return store.query<MeterInUse>(
    `WITH dated AS (
       SELECT key, version, body, lead(created_at) OVER (PARTITION BY key ORDER BY version) AS replaced_at
       FROM catalogue_version WHERE mode = $1 AND kind = 'plan')
     SELECT used.key AS meter, used.value::int AS version,
       array_agg(dated.key || '@' || dated.version ORDER BY dated.key, dated.version) AS plans
     FROM dated, json_each_text(body -> 'meterVersions') AS used
     WHERE replaced_at IS NULL OR replaced_at > $2::timestamptz - CASE
       WHEN body -> 'plan' ->> 'interval' = 'year' OR EXISTS (
         SELECT FROM customer_contract WHERE mode = $1 AND plan_key = dated.key AND overrides ->> 'interval' = 'year')
       THEN interval '366 days' ELSE interval '31 days' END
     GROUP BY used.key, used.value::int ORDER BY used.key, used.value::int`,
    [mode, new Date(now)],
  );
}
