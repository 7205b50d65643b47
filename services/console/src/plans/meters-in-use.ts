/** Which versions of meters some period may still be rated by. */
import type { Mode, SqlRunner } from "@tallyhouse/domain";

/** A version of a meter that plans or contracts name. */
export interface MeterInUse {
  readonly meter: string;
  readonly version: number;
  /** Such as `pro@3`, and `pro+2 of acme` for a contract; the first twenty. */
  readonly plans: readonly string[];
}

/**
 * The newest version of each plan and contract, and those that rate a period which began before their successor came: a period is at
 * most 31 days long, 366 where plan or contract says year. Without a look at customers: an assignment may be dated back.
 */
export function readMetersInUse(store: SqlRunner, mode: Mode, now: number): Promise<MeterInUse[]> {
  return store.query<MeterInUse>(
    `WITH plan AS (
       SELECT key, version, body, lead(created_at) OVER (PARTITION BY key ORDER BY version) AS replaced_at
       FROM catalogue_version WHERE mode = $1 AND kind = 'plan'),
     contract AS (
       SELECT *, lead(created_at) OVER (PARTITION BY customer_id, plan_key ORDER BY version) AS replaced_at
       FROM customer_contract WHERE mode = $1),
     named AS (
       SELECT key || '@' || version AS name, body -> 'meterVersions' AS meters FROM plan
       WHERE replaced_at IS NULL OR replaced_at > $2::timestamptz - CASE
         WHEN body -> 'plan' ->> 'interval' = 'year'
           OR EXISTS (SELECT FROM contract WHERE plan_key = plan.key AND overrides ->> 'interval' = 'year')
         THEN interval '366 days' ELSE interval '31 days' END
       UNION ALL
       SELECT plan_key || '+' || version || ' of ' || customer_id, meter_versions FROM contract
       WHERE replaced_at IS NULL OR replaced_at > $2::timestamptz - interval '366 days')
     SELECT used.key AS meter, used.value::int AS version, (array_agg(name ORDER BY name))[1:20] AS plans
     FROM named, json_each_text(meters) AS used
     GROUP BY used.key, used.value::int ORDER BY used.key, used.value::int`,
    [mode, new Date(now)],
  );
}
