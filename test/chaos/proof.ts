/** Everything that must hold of a world once its faults are over and all usage events are acknowledged. */
import { type AnalyticsStore, formatInstant, formatQuantity, HOUR_MS, parseQuantity } from "@tallyhouse/domain";
import type { World } from "../integration/world.ts";
import { untilFolded, untilReported } from "../support/pipeline-status.ts";
import { emulatorTotals, readTruth } from "../support/recount.ts";
import type { ChaosCorrections } from "./corrections.ts";
import type { ChaosLoad } from "./load.ts";
import type { TotalLine, UsageSource } from "./usage-source.ts";

const SETTLE_MAX_MS = 900_000;
/** Lines of a difference that are kept. */
const SHOWN_MAX = 20;
/** What was compared and what differed. */
export interface Proof {
  readonly accepted: number;
  /** Usage events voided or replaced. */
  readonly corrections: number;
  readonly totals: number;
  readonly meterEvents: number;
  /** Raw rows by status. */
  readonly fates: Readonly<Record<string, number>>;
  /** One line for each thing that is not as it must be. */
  readonly differences: readonly string[];
}

/** Settles, waits for the whole pipeline and compares every end of it with the oracle. */
export async function prove(input: {
  world: World;
  load: ChaosLoad;
  corrections: ChaosCorrections;
  source: UsageSource;
  /** Keys of the meters that came under load. */
  lateMeters: readonly string[];
}): Promise<Proof> {
  const { world, load, corrections, source, lateMeters } = input;
  await world.untilReady();
  await load.settle(SETTLE_MAX_MS);
  const target = { url: world.gatewayUrls[0], token: world.token };
  await untilFolded(target, SETTLE_MAX_MS);
  await corrections.settle(SETTLE_MAX_MS);
  await untilFolded(target, SETTLE_MAX_MS);
  await untilReported(target);
  const { analytics } = world.ports;
  const oracle = source.totals(load.made, corrections.asked, lateMeters);
  const truth = await readTruth(world.emulatorUrl);
  const fates = await readFates(analytics);
  const differences = [
    ...[...load.refusals, ...corrections.refusals].slice(0, SHOWN_MAX).map((text) => `refused: ${text}`),
    ...(await identityDifferences(analytics, load.made)),
    ...unexpectedFates(fates),
    ...differenceOf("stored totals", await storedTotals(analytics), oracle),
    ...differenceOf("totals of the emulator", withoutZeros(emulatorTotals(truth)), hourlyOf(oracle, lateMeters)),
    ...(await auditDifferences(world)),
  ];
  return {
    accepted: load.made,
    corrections: corrections.asked.size,
    totals: oracle.length,
    meterEvents: truth.events.length,
    fates,
    differences,
  };
}

/** Lines on one side only; each total is one line, so a wrong one shows twice. */
function differenceOf(what: string, found: readonly string[], expected: readonly string[]): string[] {
  const [foundSet, expectedSet] = [new Set(found), new Set(expected)];
  const missing = expected.filter((line) => !foundSet.has(line)).map((line) => `${what}: expected ${line}`);
  const extra = found.filter((line) => !expectedSet.has(line)).map((line) => `${what}: found ${line}`);
  const repeated = found.length === foundSet.size ? [] : [`${what}: ${found.length - foundSet.size} lines stand twice`];
  return [...shown(missing), ...shown(extra), ...repeated];
}

function shown(lines: readonly string[]): string[] {
  return lines.length <= SHOWN_MAX
    ? [...lines]
    : [...lines.slice(0, SHOWN_MAX), `… and ${lines.length - SHOWN_MAX} more`];
}

/**
 * What the rollups hold, and where something was voided that cannot be taken out of a rollup, what the raw rows do: as every
 * reader of the product must (exactly-once.md 3).
 */
async function storedTotals(analytics: AnalyticsStore): Promise<TotalLine[]> {
  const raw = `SELECT customer, toDateTime(toStartOfFifteenMinutes(occurredAt), 'UTC') AS windowStart,
      max(JSONExtractInt(payload, 'tokens')) AS largest, min(JSONExtractInt(payload, 'tokens')) AS smallest,
      max(JSONExtractInt(payload, 'at')) AS newest, uniqExact(JSONExtractString(payload, 'caller')) AS callers
    FROM counted_events GROUP BY customer, windowStart`;
  const unique = `SELECT customer, windowStart, uniqExact(valueHash) AS callers FROM rollup_uniq
    WHERE meter = 'callers' GROUP BY customer, windowStart`;
  const rows = await analytics.select<{ line: string }>(
    `SELECT concat(u.customer, ',', u.meter, ',', toString(toUnixTimestamp(u.windowStart)), ',',
       arrayStringConcat(u.dims, '|'), ',', toString(multiIf(
         u.meter = 'largest', if(u.voided = 0, u.maxQty, toDecimal128(r.largest, 9)),
         u.meter = 'smallest', if(u.voided = 0, u.minQty, toDecimal128(r.smallest, 9)),
         u.meter = 'newest', if(u.voided = 0, u.lastQty, toDecimal128(r.newest, 9)),
         u.meter = 'callers', toDecimal128(if(u.voided = 0, q.callers, r.callers), 9),
         u.sumQty))) AS line
     FROM usage AS u
     LEFT JOIN (${raw}) AS r ON r.customer = u.customer AND r.windowStart = u.windowStart
     LEFT JOIN (${unique}) AS q ON q.customer = u.customer AND q.windowStart = u.windowStart
     WHERE u.counted > u.voided`,
  );
  return rows.map(({ line }) => line).sort();
}

/** What the reporter sends: `requests`, `tokens`, `cost` and the late meters by customer and hour. */
function hourlyOf(lines: readonly TotalLine[], lateMeters: readonly string[]): string[] {
  const reported = new Set(["requests", "tokens", "cost", ...lateMeters]);
  const totals = new Map<string, bigint>();
  for (const line of lines) {
    const [customer, meter = "", windowStart, , quantity = ""] = line.split(",");
    if (!reported.has(meter)) continue;
    const hourAt = Math.floor((Number(windowStart) * 1_000) / HOUR_MS) * HOUR_MS;
    const key = `${customer},${meter},${formatInstant(hourAt)}`;
    totals.set(key, (totals.get(key) ?? 0n) + (parseQuantity(quantity) ?? 0n));
  }
  return [...totals].map(([key, total]) => `${key},${formatQuantity(total)}`).sort();
}

/** Ids end in their number; all of [0, made) must be counted, each once, and nothing else. */
async function identityDifferences(analytics: AnalyticsStore, made: number): Promise<string[]> {
  const numbered = `SELECT toUInt64OrNull(splitByChar('-', id)[2]) AS number, count() AS copies
    FROM raw_events FINAL WHERE status = 'counted' AND reason != 'replace' GROUP BY number`;
  const rows = await analytics.select<{ what: string }>(
    `SELECT concat('accepted, then lost: ', toString(n.number)) AS what
       FROM numbers({made:UInt64}) AS n LEFT ANTI JOIN (${numbered}) AS c ON c.number = n.number LIMIT ${SHOWN_MAX}
     UNION ALL SELECT concat('counted ', toString(copies), ' times: ', toString(number)) AS what
       FROM (${numbered}) WHERE copies != 1 LIMIT ${SHOWN_MAX}
     UNION ALL SELECT concat('counted, never sent: ', toString(number)) AS what
       FROM (${numbered}) WHERE number IS NULL OR number >= {made:UInt64} LIMIT ${SHOWN_MAX}
     UNION ALL SELECT concat(toString(status), ' row with the wrong payload: ', id) AS what
       FROM raw_events FINAL
       WHERE reason != 'replace' AND ((status IN ('counted', 'duplicate') AND JSONHas(payload, 'changed'))
         OR (status = 'conflict' AND NOT JSONHas(payload, 'changed'))) LIMIT ${SHOWN_MAX}`,
    { made },
  );
  return rows.map(({ what }) => what);
}

/** A bucket whose only usage was voided. */
function withoutZeros(lines: readonly string[]): string[] {
  return lines.filter((line) => !line.endsWith(",0"));
}

async function readFates(analytics: AnalyticsStore): Promise<Record<string, number>> {
  const rows = await analytics.select<{ status: string; rows: string }>(
    "SELECT toString(status) AS status, toString(count()) AS rows FROM raw_events FINAL GROUP BY status",
  );
  return Object.fromEntries(rows.map(({ status, rows }) => [status, Number(rows)]));
}

function unexpectedFates(fates: Readonly<Record<string, number>>): string[] {
  return ["too_late", "too_early", "invalid"].flatMap((status) =>
    fates[status] === undefined ? [] : [`${fates[status]} raw rows are ${status}`],
  );
}

/** What `tallyhouse audit` says of the deployment: nothing when it is clean. */
async function auditDifferences(world: World): Promise<string[]> {
  try {
    await world.command(["audit"]);
    return [];
  } catch (error) {
    const { stdout = "", stderr = "", message } = error as Error & { stdout?: string; stderr?: string };
    return `${stdout}${stderr}`.trim() === "" ? [`audit: ${message}`] : `${stdout}${stderr}`.trim().split("\n");
  }
}
