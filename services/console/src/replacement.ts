/** The usage event that stands in for another: checked as the gateway would, and placed where dedupe can see it. */
import {
  type AnalyticsStore,
  canonicalJson,
  compileMeter,
  encodeUsageEvent,
  formatInstant,
  type JsonObject,
  MINUTE_MS,
  partitionOfEvent,
  readUsageEvent,
  type SqlRunner,
  USAGE_EVENT_LIMITS,
  type UsageEvent,
} from "@tallyhouse/domain";
import { readDefinitions, type StreamSize } from "@tallyhouse/usage";
import { isReplacement } from "./correction-store.ts";
import type { FieldProblem } from "./problem.ts";
import { type EventIdentity, type RawRow, readRawRows } from "./raw-rows.ts";

/** How far ahead of our clock a replacement may occur: as for every usage event. */
const AHEAD_MAX_MS = 5 * MINUTE_MS;
/** Ids tried for one that fits its partition: of 1,024 partitions one in 1,024 does, so that nothing fits is a chance of e⁻⁶⁴. */
const ID_TRIES_MAX = 65_536;
/** Fitting ids that are taken already: one more for each time the same usage event was replaced. */
const TAKEN_IDS_MAX = 100;

export interface ReplacementPorts {
  readonly analytics: AnalyticsStore;
  readonly control: SqlRunner;
  readonly stream: StreamSize;
}

/** The replacement as it will be counted, or every reason why not; fields are JSON pointers into the request's body. */
export type Replacement =
  | { readonly kind: "replacement"; readonly event: UsageEvent & { readonly occurredAt: number } }
  | { readonly kind: "problems"; readonly problems: readonly FieldProblem[] };

/**
 * Reads `event` of a request. Customer, source and time are those of the replaced usage event where it names none, the id one of
 * ours: `<id>~r1`, `~r2`, …, the first that belongs to the same partition of the log and is not in use. Dedupe knows the identities
 * of its own partition alone, so an identity elsewhere could be counted a second time.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function readReplacement(
  ports: ReplacementPorts,
  input: { readonly given: JsonObject; readonly replaced: RawRow; readonly now: number },
): Promise<Replacement> {
  const { given, replaced, now } = input;
  // With a placeholder first, so that nothing is looked up for an event that is wrong anyway.
  const reading = readGiven(given, { replaced, id: given["id"] ?? "placeholder" });
  if (reading.kind === "problems") return reading;
  const limits = limitProblems(reading.event, now);
  if (limits.length > 0) return problems(limits);
  const named = await nameReplacement(ports, { event: reading.event, given, replaced });
  if (named.kind === "problems") return named;
  // Our id is longer than the placeholder was.
  const size = sizeProblems(named.event);
  if (size.length > 0) return problems(size);
  const unread = await unreadableMeters(ports, named.event);
  return unread.length > 0 ? problems(unread) : named;
}

/** Whether a stored replacement is what a repeated request asks for; the id counts only when the request names one. */
export function isSameReplacement(
  stored: UsageEvent & { readonly occurredAt: number },
  input: { readonly given: JsonObject; readonly replaced: RawRow },
): boolean {
  const reading = readGiven(input.given, { replaced: input.replaced, id: input.given["id"] ?? stored.id });
  if (reading.kind === "problems") return false;
  const asText = ({ customer, source, id, type, occurredAt, data }: UsageEvent): string =>
    canonicalJson([customer, source, id, type, occurredAt, data]);
  return asText(reading.event) === asText(stored);
}

function problems(found: readonly FieldProblem[]): Replacement & { kind: "problems" } {
  return { kind: "problems", problems: found };
}

function readGiven(given: JsonObject, input: { readonly replaced: RawRow; readonly id: unknown }): Replacement {
  const { replaced, id } = input;
  const { mode, customer, source, occurredAt } = replaced;
  if (Object.hasOwn(given, "specversion"))
    return problems([{ field: "/event/specversion", rule: "send the native shape: type, time and data" }]);
  const reading = readUsageEvent({ customer, source, time: formatInstant(occurredAt), ...given, id }, mode);
  if (reading.kind === "rejected") {
    const { code, pointer, rule } = reading.rejection;
    return problems([{ field: `/event${pointer}`, rule: `${rule} (${code})` }]);
  }
  return { kind: "replacement", event: { ...reading.event, occurredAt: reading.event.occurredAt ?? occurredAt } };
}

function limitProblems(event: UsageEvent & { readonly occurredAt: number }, now: number): FieldProblem[] {
  const field = "/event/time";
  if (event.occurredAt > now + AHEAD_MAX_MS)
    return [{ field, rule: `is more than 5 minutes in the future (now is ${formatInstant(now)})` }];
  if (event.occurredAt < 0) return [{ field, rule: "is before 1970" }];
  return sizeProblems(event);
}

function sizeProblems(event: UsageEvent): FieldProblem[] {
  const bytes = encodeUsageEvent(event, {}).length;
  if (bytes <= USAGE_EVENT_LIMITS.eventBytesMax) return [];
  const rule = `is ${bytes} bytes as stored, at most ${USAGE_EVENT_LIMITS.eventBytesMax} are taken (EVENT_TOO_LARGE)`;
  return [{ field: "/event", rule }];
}

async function nameReplacement(
  ports: ReplacementPorts,
  input: {
    readonly event: UsageEvent & { readonly occurredAt: number };
    readonly given: JsonObject;
    readonly replaced: RawRow;
  },
): Promise<Replacement> {
  const { event, given, replaced } = input;
  const field = "/event/id";
  const fits = (id: string): boolean =>
    partitionOfEvent({ ...event, id }, ports.stream.partitionCount) === replaced.partition;
  if (!Object.hasOwn(given, "id")) {
    const free = await freeId(ports, { event, base: replaced.id, fits });
    if (free !== null) return { kind: "replacement", event: { ...event, id: free } };
    return problems([{ field, rule: "no id of ours is free for this usage event: give one" }]);
  }
  if (!fits(event.id)) {
    const suggestion = await freeId(ports, { event, base: event.id, fits });
    const example = suggestion === null ? "" : `: "${suggestion}" does; or leave id out`;
    const rule = `must fall into the log partition of the replaced usage event, which this one does not${example}`;
    return problems([{ field, rule }]);
  }
  if (await isKnown(ports, event)) return problems([{ field, rule: "is the identity of a usage event in the log" }]);
  return { kind: "replacement", event };
}

/** The first free id of the form `<base>~r<n>` that fits; null when 100 of them are taken. */
async function freeId(
  ports: ReplacementPorts,
  input: { readonly event: UsageEvent; readonly base: string; readonly fits: (id: string) => boolean },
): Promise<string | null> {
  const { event, base, fits } = input;
  let taken = 0;
  for (let number = 1; number <= ID_TRIES_MAX && taken < TAKEN_IDS_MAX; number += 1) {
    const suffix = `~r${number}`;
    const id = cutText(base, USAGE_EVENT_LIMITS.identityCharactersMax - suffix.length) + suffix;
    if (!fits(id)) continue;
    if (!(await isKnown(ports, { ...event, id }))) return id;
    taken += 1;
  }
  return null;
}

/** At most so many UTF-16 units, never half a character. */
function cutText(text: string, unitsMax: number): string {
  const cut = text.slice(0, unitsMax);
  return cut.isWellFormed() ? cut : cut.slice(0, -1);
}

/** Whether the log holds it, or a correction on its way there does. */
async function isKnown(ports: ReplacementPorts, identity: EventIdentity): Promise<boolean> {
  const rows = await readRawRows(ports.analytics, identity, { rowsMax: 1 });
  return rows.length > 0 || isReplacement(ports.control, identity);
}

/** Active meters that could not read the replacement: the fold would refuse the whole correction for one of them. */
async function unreadableMeters(
  ports: ReplacementPorts,
  event: UsageEvent & { readonly occurredAt: number },
): Promise<FieldProblem[]> {
  const definitions = await readDefinitions(ports.analytics, ports.stream, { mode: event.mode });
  const place = `${ports.stream.streamId}/${partitionOfEvent(event, ports.stream.partitionCount)}`;
  return definitions.flatMap(({ version, places }) => {
    const { fromOffset = null, untilAt = 0 } = places.get(place) ?? {};
    if (version.rule.eventType !== event.type || fromOffset === null) return [];
    const meter = compileMeter(version);
    if (
      event.occurredAt < meter.fromAt ||
      event.occurredAt >= untilAt ||
      meter.contributionOf(event).kind !== "invalid"
    )
      return [];
    const field = `/event/data${version.rule.value ?? ""}`;
    return [{ field, rule: `cannot be read by meter ${version.meter} v${version.version} (METER_VALUE_INVALID)` }];
  });
}
