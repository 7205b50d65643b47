/** What a meters file would change, and the one transaction that changes it. */
import {
  type AnalyticsStore,
  type ControlFact,
  type ControlStore,
  formatInstant,
  meterDigest,
  type MeterRule,
  type Mode,
  parseInstant,
  type SqlRunner,
} from "@tallyhouse/domain";
import type { FieldProblem, Problem } from "./problem.ts";

/**
 * What applying a rule does: `unit-only` renames the unit of the newest version, `none` nothing at all. `old-version` is refused:
 * the rule equals a version that a newer one replaced, and a version is made once.
 */
export type MeterChangeKind = "new" | "new-version" | "unit-only" | "none" | "old-version";

/** One meter of the file against the newest version that was ever applied. */
export interface MeterChange {
  readonly key: string;
  readonly change: MeterChangeKind;
  /** The version that holds after applying; of `old-version`, the one that the rule equals. */
  readonly version: number;
  /** Fields of the rule that differ; empty for `new` and `none`. */
  readonly fields: readonly string[];
}

interface VersionRow {
  readonly key: string;
  readonly version: number;
  readonly digest: string;
  readonly unit: string;
  readonly rule: MeterRule;
}

/** Compares rules with the newest versions of the mode. Meters that are not in the list stay as they are: nothing ends a meter. */
export async function diffMeters(store: SqlRunner, mode: Mode, rules: readonly MeterRule[]): Promise<MeterChange[]> {
  const rows = await store.query<VersionRow>(
    "SELECT key, version, digest, unit, rule FROM meter_version WHERE mode = $1 ORDER BY version DESC",
    [mode],
  );
  const versions = Map.groupBy(rows, ({ key }) => key);
  return rules.map((rule) => changeOf(rule, versions.get(rule.key) ?? []));
}

/** `versions` of the rule's key, newest first. */
function changeOf(rule: MeterRule, versions: readonly VersionRow[]): MeterChange {
  const { key } = rule;
  const [newest] = versions;
  if (newest === undefined) return { key, change: "new", version: 1, fields: [] };
  const digest = meterDigest(rule);
  const equal = versions.find((version) => version.digest === digest);
  const fields = changedFields(rule, newest);
  if (equal === undefined) return { key, change: "new-version", version: newest.version + 1, fields };
  if (equal !== newest) return { key, change: "old-version", version: equal.version, fields };
  return { key, change: fields.length === 0 ? "none" : "unit-only", version: newest.version, fields };
}

function changedFields(rule: MeterRule, known: VersionRow): readonly string[] {
  const before: MeterRule = { ...known.rule, unit: known.unit };
  const names = ["eventType", "aggregation", "value", "where", "dimensions", "unit", "from"] as const;
  // As text, because the order of dimensions is a part of the rule; both sides come from one schema, so keys stand alike.
  return names.filter((name) => JSON.stringify(rule[name]) !== JSON.stringify(before[name]));
}

/** Refuses rules that a newer version replaced; null when there are none. */
export function refuseOldVersions(changes: readonly MeterChange[]): Problem | null {
  const problems = changes
    .filter(({ change }) => change === "old-version")
    .map(({ key, version }) => ({
      field: key,
      rule: `equals version ${version}, which a newer version replaced: give it another from, and it is a new version`,
    }));
  if (problems.length === 0) return null;
  return { status: 409, code: "METERS_INVALID", detail: "a version that was replaced cannot come back", problems };
}

/**
 * Refuses a new version whose `from` precedes usage that is already stored: there is no backfill yet, so that usage would be
 * missing from its totals for ever.
 *
 * What the check cannot see is usage that stands in the log, in front of the activation, but is not stored yet. Apply a meter
 * before its first usage event is sent, or choose a `from` in the future.
 * @returns null when every changed rule may be applied.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function refuseTooEarly(
  analytics: AnalyticsStore,
  mode: Mode,
  changed: readonly MeterRule[],
): Promise<Problem | null> {
  const problems: FieldProblem[] = [];
  for (const rule of changed) {
    const [row] = await analytics.select<{ newest: string; found: string }>(
      `SELECT toString(toUnixTimestamp64Milli(max(occurredAt))) AS newest, toString(count()) AS found FROM raw_events
       WHERE mode = {mode:String} AND type = {type:String} AND status = 'counted'
         AND occurredAt >= fromUnixTimestamp64Milli({fromAt:Int64}, 'UTC')`,
      { mode, type: rule.eventType, fromAt: parseInstant(rule.from) ?? 0 },
    );
    if (row === undefined || row.found === "0") continue;
    problems.push({
      field: `${rule.key}.from`,
      rule:
        `is ${rule.from}, but usage events of type "${rule.eventType}" up to ${formatInstant(Number(row.newest))} ` +
        "are stored already and would not be counted; choose a later from",
    });
  }
  if (problems.length === 0) return null;
  const detail = "usage that is stored already would be missing from these meters";
  return { status: 409, code: "METER_FROM_TOO_EARLY", detail, problems };
}

/**
 * Stores new versions and, in the same transaction, one activation per partition for the outbox: a version without its
 * activations would never count, an activation without its version would have no owner.
 * Safe to repeat: yes, an equal digest changes nothing. Two callers at once: the transactions are serializable, the second one sees
 * the first one's versions.
 * @returns what changed.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry); nothing is stored.
 */
export function applyMeters(
  control: ControlStore,
  input: {
    readonly mode: Mode;
    readonly rules: readonly MeterRule[];
    readonly stream: { readonly streamId: number; readonly partitionCount: number };
    readonly now: number;
  },
): Promise<MeterChange[]> {
  const { mode, rules, stream, now } = input;
  return control.transaction(async (tx) => {
    const changes = await diffMeters(tx, mode, rules);
    for (const [index, { key, change, version }] of changes.entries()) {
      const rule = rules[index];
      if (rule === undefined || change === "none" || change === "old-version") continue;
      if (change === "unit-only") {
        await tx.query("UPDATE meter_version SET unit = $1 WHERE mode = $2 AND key = $3 AND version = $4", [
          rule.unit,
          mode,
          key,
          version,
        ]);
        continue;
      }
      await tx.query(
        `INSERT INTO meter_version (mode, key, version, digest, rule, unit, active_from, created_at, created_by)
         VALUES ($1, $2, $3, $4, $5::json, $6, $7, $8, $9)`,
        [
          mode,
          key,
          version,
          meterDigest(rule),
          JSON.stringify(rule),
          rule.unit,
          new Date(parseInstant(rule.from) ?? 0),
          new Date(now),
          `service token, ${mode}`,
        ],
      );
      const fact: ControlFact = { kind: "meter.activate", mode, meter: key, version, rule };
      const { kind, ...body } = fact;
      await tx.query(
        `INSERT INTO control_outbox (stream, partition, kind, body, created_at)
         SELECT $1, partition, $2, $3::json, $4 FROM generate_series(0, $5::int - 1) AS partition`,
        [stream.streamId, kind, JSON.stringify(body), new Date(now), stream.partitionCount],
      );
    }
    return changes;
  });
}
