/** What a meters file would change, and the one transaction that changes it. */
import {
  ceilTo,
  type ControlFact,
  type ControlStore,
  type DeclaredMeter,
  formatInstant,
  meterDigest,
  type MeterRule,
  type Mode,
  parseInstant,
  type SqlRunner,
  WINDOW_MS,
} from "@tallyhouse/domain";
import { type MeterInUse, readMetersInUse } from "./plans/meters-in-use.ts";
import type { Problem } from "./problem.ts";

/**
 * What applying a rule does: `unit-only` renames the unit of the newest version, `none` nothing at all. Refused are `old-version` and
 * `ended`: the rule equals a version that a newer one replaced, or the newest one, which was ended; a version is made once.
 */
export type MeterChangeKind = "new" | "new-version" | "unit-only" | "none" | "old-version" | "ended";

/** A version that stops counting. */
export interface MeterEnd {
  readonly version: number;
  readonly until: string;
}

/** A version that goes on counting beside its successor, because plans freeze the versions of their meters. */
export interface MeterKept {
  readonly version: number;
  /** Plan versions that name it, such as `pro@3`. */
  readonly plans: readonly string[];
}

/** One meter of the file against the newest version that was ever applied. */
export interface MeterChange {
  readonly key: string;
  readonly change: MeterChangeKind;
  /** The version that holds after applying; of `old-version` and `ended`, the one that the rule equals. */
  readonly version: number;
  /** Fields of the rule that differ; empty for `new` and `none`. */
  readonly fields: readonly string[];
  /** From when that version counts: what the file says, else what is chosen now. */
  readonly from: string;
  /** Versions that it replaces, and until when they count: also those that an earlier apply kept and that no plan names any more. */
  readonly ends: readonly MeterEnd[];
  /** Versions that it would replace, and that stay: an item of a plan must not stop counting in the middle of a period. */
  readonly kept: readonly MeterKept[];
}

/** When things are decided, and how far ahead usage may occur (MAX_AHEAD_SECONDS of the aggregator). */
export interface ChangeTime {
  readonly now: number;
  readonly maxAheadMs: number;
}

/**
 * How long an end may wait in the outbox: it is valid while the log's clock is more than MAX_AHEAD before it, so that no usage behind
 * it can have been counted. An end that waits longer is sent again with a later instant.
 */
const OUTBOX_MARGIN_MS = 600_000;

/** The earliest instant, a window's start, at which a version may end: nothing that occurs at or after it is counted yet. */
export function earliestEnd({ now, maxAheadMs }: ChangeTime): number {
  return ceilTo(now + maxAheadMs + OUTBOX_MARGIN_MS, WINDOW_MS);
}

/** A version as the control store keeps it. */
export interface VersionRow {
  readonly key: string;
  readonly version: number;
  readonly digest: string;
  readonly unit: string;
  readonly rule: MeterRule;
  readonly ends_at: Date | null;
}

/** Every version of the mode, newest first. */
export function readVersionRows(store: SqlRunner, mode: Mode): Promise<VersionRow[]> {
  return store.query<VersionRow>(
    "SELECT key, version, digest, unit, rule, ends_at FROM meter_version WHERE mode = $1 ORDER BY version DESC",
    [mode],
  );
}

/** A change with the whole rule that it makes, its `from` filled in. */
interface PlannedChange extends MeterChange {
  readonly rule: MeterRule;
}

/** Compares rules with the newest versions of the mode. Meters that are not in the list stay as they are. */
export async function diffMeters(
  store: SqlRunner,
  mode: Mode,
  input: ChangeTime & { readonly rules: readonly DeclaredMeter[] },
): Promise<MeterChange[]> {
  const changes = await planMeters(store, mode, input);
  return changes.map(({ rule: _rule, ...change }) => change);
}

async function planMeters(
  store: SqlRunner,
  mode: Mode,
  input: ChangeTime & { readonly rules: readonly DeclaredMeter[] },
): Promise<PlannedChange[]> {
  const versions = Map.groupBy(await readVersionRows(store, mode), ({ key }) => key);
  const used = Map.groupBy(await readMetersInUse(store, mode, input.now), ({ meter }) => meter);
  return input.rules.map((declared) => {
    const { key } = declared;
    return planOf(declared, { versions: versions.get(key) ?? [], used: used.get(key) ?? [], time: input });
  });
}

/** `versions` of the rule's key, newest first. */
function planOf(
  declared: DeclaredMeter,
  known: { readonly versions: readonly VersionRow[]; readonly used: readonly MeterInUse[]; readonly time: ChangeTime },
): PlannedChange {
  const { versions, used, time } = known;
  const { key } = declared;
  const planned = (change: MeterChangeKind, version: number, rule: MeterRule): PlannedChange => {
    return { key, change, version, fields: [], from: rule.from, ends: [], kept: [], rule };
  };
  const [newest] = versions;
  if (newest === undefined) return planned("new", 1, withFrom(declared, formatInstant(time.now)));
  // A rule without `from` says nothing about it, so it is compared as if it had the newest one's.
  const rule = withFrom(declared, newest.rule.from);
  const digest = meterDigest(rule);
  const equal = versions.find((version) => version.digest === digest);
  const fields = changedFields(rule, newest);
  if (equal === newest) {
    if (newest.ends_at !== null) return planned("ended", newest.version, rule);
    const kept = versions.filter((version) => version !== newest && version.ends_at === null);
    return {
      ...planned(fields.length === 0 ? "none" : "unit-only", newest.version, rule),
      fields,
      ...endsOf(kept, { untilAt: earliestEnd(time), used }),
    };
  }
  if (equal !== undefined) return { ...planned("old-version", equal.version, rule), fields };
  const endAt = earliestEnd(time);
  const made = withFrom(declared, formatInstant(endAt));
  // The one instant for both, so that none counts under both; a `from` before it is a correction of the past, and overlaps.
  const untilAt = Math.max(endAt, parseInstant(made.from) ?? 0);
  return { ...planned("new-version", newest.version + 1, made), fields, ...endsOf(versions, { untilAt, used }) };
}

function withFrom(declared: DeclaredMeter, from: string): MeterRule {
  return { ...declared, from: declared.from ?? from };
}

/** Of the versions that would count at or after the instant, those that end there, and those that plans keep. */
function endsOf(
  versions: readonly VersionRow[],
  { untilAt, used }: { readonly untilAt: number; readonly used: readonly MeterInUse[] },
): Pick<MeterChange, "ends" | "kept"> {
  const counting = versions.filter(({ ends_at: endsAt }) => endsAt === null || endsAt.getTime() > untilAt);
  const until = formatInstant(untilAt);
  const plansOf = (version: number): readonly string[] | undefined =>
    used.find((each) => each.version === version)?.plans;
  return {
    ends: counting.flatMap(({ version }) => (plansOf(version) === undefined ? [{ version, until }] : [])),
    kept: counting.flatMap(({ version, ends_at: endsAt }) => {
      const plans = plansOf(version);
      return plans === undefined || endsAt !== null ? [] : [{ version, plans }];
    }),
  };
}

function changedFields(rule: MeterRule, known: VersionRow): readonly string[] {
  const before: MeterRule = { ...known.rule, unit: known.unit };
  const names = ["eventType", "aggregation", "value", "where", "dimensions", "unit", "from"] as const;
  // As text, because the order of dimensions is a part of the rule; both sides come from one schema, so keys stand alike.
  return names.filter((name) => JSON.stringify(rule[name]) !== JSON.stringify(before[name]));
}

/** Refuses rules that equal a version which was replaced or ended; null when there are none. */
export function refuseOldVersions(changes: readonly MeterChange[]): Problem | null {
  const problems = changes
    .filter(({ change }) => change === "old-version" || change === "ended")
    .map(({ key, change, version }) => ({
      field: key,
      rule:
        `equals version ${version}, which ${change === "ended" ? "was ended" : "a newer version replaced"}: ` +
        "give it another from, and it is a new version",
    }));
  if (problems.length === 0) return null;
  return {
    status: 409,
    code: "METERS_INVALID",
    detail: "a version that was replaced or ended cannot come back",
    problems,
  };
}

/** The stream whose partitions get control records. */
export interface ControlStream {
  readonly streamId: number;
  readonly partitionCount: number;
  readonly predecessors?: readonly { readonly streamId: number; readonly partitionCount: number }[];
}

/**
 * Stores new versions and, in the same transaction, one activation per partition for the outbox: a version without its
 * activations would never count, an activation without its version would have no owner. The ends of the versions that are replaced
 * go with them: alone, a crash between them would leave usage counted twice, or not at all.
 * Safe to repeat: yes, an equal digest changes nothing. Two callers at once: the transactions are serializable, the second one sees
 * the first one's versions.
 * @returns what changed.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry); nothing is stored.
 */
export function applyMeters(
  control: ControlStore,
  input: ChangeTime & {
    readonly mode: Mode;
    readonly rules: readonly DeclaredMeter[];
    readonly stream: ControlStream;
  },
): Promise<MeterChange[]> {
  const { mode, stream, now } = input;
  return control.transaction(async (tx) => {
    const changes = await planMeters(tx, mode, input);
    for (const { key, change, version, rule, ends } of changes) {
      if (change === "unit-only") {
        await tx.query("UPDATE meter_version SET unit = $1 WHERE mode = $2 AND key = $3 AND version = $4", [
          rule.unit,
          mode,
          key,
          version,
        ]);
      }
      if (change === "new" || change === "new-version") {
        await insertVersion(tx, { mode, version, rule, now });
        await enqueue(tx, { fact: { kind: "meter.activate", mode, meter: key, version, rule }, stream, now });
      }
      for (const end of ends) await storeEnd(tx, { mode, key, end, stream, now });
    }
    return changes.map(({ rule: _rule, ...change }) => change);
  });
}

async function insertVersion(
  tx: SqlRunner,
  input: { mode: Mode; version: number; rule: MeterRule; now: number },
): Promise<void> {
  const { mode, version, rule, now } = input;
  await tx.query(
    `INSERT INTO meter_version (mode, key, version, digest, rule, unit, active_from, created_at, created_by)
     VALUES ($1, $2, $3, $4, $5::json, $6, $7, $8, $9)`,
    [
      mode,
      rule.key,
      version,
      meterDigest(rule),
      JSON.stringify(rule),
      rule.unit,
      new Date(parseInstant(rule.from) ?? 0),
      new Date(now),
      `service token, ${mode}`,
    ],
  );
}

/** Stores that a version ends, and the records that say so to every partition, in the caller's transaction. */
async function storeEnd(
  tx: SqlRunner,
  input: { mode: Mode; key: string; end: MeterEnd; stream: ControlStream; now: number },
): Promise<void> {
  const { mode, key, end, stream, now } = input;
  await tx.query("UPDATE meter_version SET ends_at = $1 WHERE mode = $2 AND key = $3 AND version = $4", [
    new Date(parseInstant(end.until) ?? 0),
    mode,
    key,
    end.version,
  ]);
  await enqueue(tx, { fact: { kind: "meter.end", mode, meter: key, ...end }, stream, now });
}

/** Puts a fact into the outbox, once for each partition, or for those that are named. */
export async function enqueue(
  tx: SqlRunner,
  input: { fact: ControlFact; stream: ControlStream; now: number; partitions?: readonly number[] },
): Promise<void> {
  const { kind, ...body } = input.fact;
  const { streamId, partitionCount } = input.stream;
  const partitions = input.partitions ?? Array.from({ length: partitionCount }, (_, partition) => partition);
  await tx.query(
    `INSERT INTO control_outbox (stream, partition, kind, body, created_at)
     SELECT $1, partition, $2, $3::json, $4 FROM unnest($5::int[]) AS partition`,
    [streamId, kind, JSON.stringify(body), new Date(input.now), partitions],
  );
}

/** What an asked-for end came to. */
export type EndOutcome =
  | { readonly kind: "ended"; readonly ends: readonly MeterEnd[] }
  | { readonly kind: "unknown" }
  | { readonly kind: "refused"; readonly detail: string };

/**
 * Ends a meter without a successor: every version that would count at or after `until`; by default the earliest possible instant.
 * Safe to repeat: yes; an end may be moved to an earlier instant, never to a later one, because the log takes no end back.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry); nothing is stored.
 */
export function endMeter(
  control: ControlStore,
  input: ChangeTime & {
    readonly mode: Mode;
    readonly key: string;
    readonly until: string | undefined;
    readonly stream: ControlStream;
  },
): Promise<EndOutcome> {
  const { mode, key, stream, now } = input;
  return control.transaction(async (tx): Promise<EndOutcome> => {
    const versions = (await readVersionRows(tx, mode)).filter((version) => version.key === key);
    const [newest] = versions;
    if (newest === undefined) return { kind: "unknown" };
    const earliestAt = earliestEnd(input);
    const untilAt = input.until === undefined ? earliestAt : (parseInstant(input.until) ?? 0);
    const { ends } = endsOf(versions, { untilAt, used: [] });
    const known = (): MeterEnd[] => [
      { version: newest.version, until: formatInstant(newest.ends_at?.getTime() ?? untilAt) },
    ];
    if (ends.length === 0) {
      const isEarlier = input.until !== undefined && (newest.ends_at?.getTime() ?? 0) < untilAt;
      if (!isEarlier) return { kind: "ended", ends: known() };
      const detail = `"${key}" ends at ${known()[0]?.until} already, and an end is not taken back; a new version may begin later`;
      return { kind: "refused", detail };
    }
    if (untilAt < earliestAt) {
      const detail = `usage of ${formatInstant(untilAt)} may be counted already; the earliest end is ${formatInstant(earliestAt)}`;
      return { kind: "refused", detail };
    }
    for (const end of ends) await storeEnd(tx, { mode, key, end, stream, now });
    return { kind: "ended", ends };
  });
}
