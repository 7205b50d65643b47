/**
 * Millions of identities that are easily taken for each other, the same in TypeScript (through the product's digester) and in
 * SQL (through the engine's own hash function): the n-th identity, and a twin of it that was never counted.
 */
import { createDigester, partitionOfEvent, type UsageEvent } from "@tallyhouse/domain";

/** What a run of the identities is made of. All times in epoch seconds. */
export interface IdentityPlan {
  readonly seed: number;
  /** Identities below progress, offsets 0 to written - 1, booked over the last 40 days: an eighth is beyond the horizon. */
  readonly written: number;
  /** Identities that come after: behind progress at the kill, then counted again within a day. */
  readonly later: number;
  /** The log clock of the stored prefix. */
  readonly clockAt: number;
}

export const PARTITIONS = 16;
export const STREAM_ID = 1;
const DAY_SECONDS = 86_400;
export const HORIZON_SECONDS = 35 * DAY_SECONDS;
const WRITTEN_SPAN_SECONDS = 40 * DAY_SECONDS;
export const LATER_SPAN_SECONDS = DAY_SECONDS;

/** The plan in which so many identities are within the horizon: 35 of 40 days. */
export function planOf(input: { identities: number; seed: number; clockAt: number }): IdentityPlan {
  const written = Math.ceil((input.identities * 8) / 7);
  return { seed: input.seed, clockAt: input.clockAt, written, later: Math.ceil(input.identities / 8) };
}

export function hashSeedOf({ seed }: IdentityPlan): Buffer {
  const bytes = Buffer.alloc(16, "bench of dedupe!");
  bytes.writeUInt32LE(seed, 0);
  return bytes;
}

/** When the n-th identity was booked; the later it comes, the later it was. */
export function bookedAtOf({ written, later, clockAt }: IdentityPlan, n: number): number {
  if (n >= written) return clockAt + 1 + Math.floor(((n - written) * LATER_SPAN_SECONDS) / later);
  return clockAt - WRITTEN_SPAN_SECONDS + Math.floor((n * WRITTEN_SPAN_SECONDS) / written);
}

type Identity = readonly [mode: string, customer: string, source: string, id: string];
/** Expressions in SQL or texts, made from the text of the family's number. */
type Shape = (text: string) => Identity;

/** Families of eight. The first three have one record key and so one partition: only the lengths tell them apart. */
const SHAPES: readonly { readonly identity: Shape; readonly twin: Shape }[] = [
  { identity: (t) => ["live", `a/b${t}`, "c", "d"], twin: (t) => ["test", "a", `b${t}/c`, "d"] },
  { identity: (t) => ["live", "a", `b${t}/c`, "d"], twin: (t) => ["test", "a", `b${t}`, "c/d"] },
  { identity: (t) => ["live", "a", `b${t}`, "c/d"], twin: (t) => ["live", "a", `b${t}`, "c"] },
  { identity: (t) => ["test", `a/b${t}`, "c", "d"], twin: (t) => ["test", `a/b${t}/c`, "d", "d"] },
  { identity: (t) => ["live", "cus-1", "api", t], twin: (t) => ["live", "cus-2", "web", t] },
  { identity: (t) => ["live", "cus-1", "web", t], twin: (t) => ["test", "cus-1", "web", t] },
  { identity: (t) => ["live", "cus-2", "api", t], twin: (t) => ["live", "cus-2", "api", `${t} `] },
  // Imitates the lengths that stand before each part, and has letters of two bytes.
  { identity: (t) => ["live", "x", "1:ü", `1:ä${t}`], twin: (t) => ["live", "x", "1:ü1:ä", t] },
];

/** What the index is asked for. */
interface Asked {
  readonly partition: number;
  readonly word0: number;
  readonly word1: number;
  readonly word2: number;
  readonly payloadCheck: number;
}

/** The n-th identity and its twin, as the fold sees them. */
export function createAsker(plan: IdentityPlan): (n: number) => { identity: Asked; twin: Asked } {
  const digest = createDigester(hashSeedOf(plan));
  const asked = ([mode, customer, source, id]: Identity, n: number): Asked => {
    const event = eventOf({ mode: mode as UsageEvent["mode"], customer, source, id }, n);
    const { word0, word1, word2, payloadCheck } = digest(event);
    return { partition: partitionOfEvent(event, PARTITIONS), word0, word1, word2, payloadCheck };
  };
  return (n) => {
    const shape = shapeOf(n);
    const family = String(Math.floor(n / SHAPES.length));
    return { identity: asked(shape.identity(family), n), twin: asked(shape.twin(family), n) };
  };
}

function shapeOf(n: number): (typeof SHAPES)[number] {
  const shape = SHAPES[n % SHAPES.length];
  if (shape === undefined) throw new Error(`no shape of ${n}`);
  return shape;
}

function eventOf(identity: Pick<UsageEvent, "mode" | "customer" | "source" | "id">, n: number): UsageEvent {
  return { ...identity, type: "t", occurredAt: null, isStamped: true, decidedAt: null, data: { n: String(n) } };
}

/** Words of a row of {@link askedSql}. */
export const ASKED_WORDS = 10;

/**
 * For each n in [from, from + count): the two low words and the third of the fingerprint, payloadCheck, partition, n; of the twin
 * the three words and the partition. In any order.
 */
export function askedSql(plan: IdentityPlan): string {
  const { withSql, fingerprint, partition } = expressions(plan, "identity");
  const twin = expressions(plan, "twin");
  return `WITH ${withSql}
    SELECT ${fingerprint}, ${payloadCheckSql(plan)}, ${partition}, toUInt32(number), ${twin.fingerprint}, ${twin.partition}
    FROM numbers({from:UInt64}, {count:UInt64})`;
}

/** Inserts the identities in [from, from + count) as the fold would have, the offset being n. */
export function insertSql(plan: IdentityPlan, from: number, count: number): string {
  const { withSql, fingerprint, partition } = expressions(plan, "identity");
  const { written, later, clockAt } = plan;
  const bookedAt = `if(number >= ${written},
    ${clockAt + 1} + intDiv((number - ${written}) * ${LATER_SPAN_SECONDS}, ${later}),
    ${clockAt - WRITTEN_SPAN_SECONDS} + intDiv(number * ${WRITTEN_SPAN_SECONDS}, ${written}))`;
  return `INSERT INTO identities (stream, logPartition, fpHigh, fpLow, logOffset, bookedAt, payloadCheck)
    WITH ${withSql}
    SELECT ${STREAM_ID}, ${partition}, ${fingerprint}, number, toDateTime(${bookedAt}, 'UTC'), ${payloadCheckSql(plan)}
    FROM numbers(${from}, ${count})`;
}

function expressions(
  plan: IdentityPlan,
  which: "identity" | "twin",
): { withSql: string; fingerprint: string; partition: string } {
  const parts = ["mode", "customer", "source", "id"].map((_, part) => {
    const texts = SHAPES.map((shape) => textSql(shape[which](FAMILY_MARK)[part] ?? ""));
    return `arrayElement([${texts.join(", ")}], number % ${SHAPES.length} + 1)`;
  });
  const hash = hashSql(plan, parts);
  return {
    withSql: `toString(intDiv(number, ${SHAPES.length})) AS family`,
    fingerprint: `reinterpretAsUInt64(substring(${hash}, 1, 8)), reinterpretAsUInt32(substring(${hash}, 9, 4))`,
    partition: `toUInt32(bitAnd(kafkaMurmurHash(concat(${parts.join(", '/', ")})), 2147483647) % ${PARTITIONS})`,
  };
}

const FAMILY_MARK = "{family}";

function textSql(text: string): string {
  const pieces = text.split(FAMILY_MARK).map((piece) => `'${piece}'`);
  return pieces.length === 1 ? pieces.join("") : `concat(${pieces.join(", family, ")})`;
}

function payloadCheckSql(plan: IdentityPlan): string {
  const hash = hashSql(plan, ["'t'", "''", `concat('{"n":"', toString(number), '"}')`]);
  return `reinterpretAsUInt32(substring(${hash}, 1, 4))`;
}

function hashSql(plan: IdentityPlan, parts: readonly string[]): string {
  const seed = hashSeedOf(plan);
  const key = [seed.readBigUInt64LE(0), seed.readBigUInt64LE(8)].map((half) => `toUInt64(${half})`).join(", ");
  const text = parts.map((part) => `toString(length(${part})), ':', ${part}`).join(", ");
  return `sipHash128ReferenceKeyed((${key}), concat(${text}))`;
}
