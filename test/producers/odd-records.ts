/** Records that a careless, broken or hostile producer might write, each with the fate that docs/producers.md promises. */
import { RECORD_BYTES_MAX } from "@tallyhouse/domain";
import { cloudEvent, type Usage, usagesOf } from "./usage.ts";

/** One record and what becomes of it. */
export interface OddRecord {
  readonly name: string;
  /** Placed where this identity belongs; without one, in partition 0. */
  readonly usage?: Usage;
  readonly value: string | Buffer | null;
  readonly headers?: Readonly<Record<string, string | Buffer | string[]>>;
  /** `status` or `status reason`. */
  readonly fate: string;
}

const usages = usagesOf("odd", 100, "test/odd");

/** Every record with an event of its own that counts or fails for one reason. */
function ownEvent(
  name: string,
  fate: string,
  make: (usage: Usage) => Pick<OddRecord, "value" | "headers"> | Readonly<Record<string, unknown>>,
): OddRecord {
  const usage = usages.pop();
  if (usage === undefined) throw new Error("more odd records than usages");
  const made = make(usage);
  const record = isRecord(made) ? made : { value: JSON.stringify(made) };
  return { name, usage, fate, ...record };
}

function isRecord(made: object): made is Pick<OddRecord, "value" | "headers"> {
  return "value" in made;
}

/** The attributes as headers, the data as value. */
function binary(
  usage: Usage,
  more: Readonly<Record<string, string | Buffer | string[]>> = {},
): Pick<OddRecord, "value" | "headers"> {
  const { data, ...attributes } = cloudEvent(usage);
  const headers = Object.entries(attributes).map(([name, value]) => [`ce_${name}`, String(value)]);
  return {
    value: JSON.stringify(data),
    headers: {
      ...(Object.fromEntries(headers) as Record<string, string>),
      "content-type": "application/json",
      ...more,
    },
  };
}

const NOT_AN_EVENT = "invalid EVENT_NOT_AN_OBJECT";
const FORGED = "invalid CONTROL_RECORD_INVALID";

const contentModes: readonly OddRecord[] = [
  ownEvent("structured", "counted", (usage) => cloudEvent(usage)),
  ownEvent("structured with its content type", "counted", (usage) => ({
    value: JSON.stringify(cloudEvent(usage)),
    headers: { "content-type": "application/cloudevents+json; charset=UTF-8" },
  })),
  ownEvent("structured with blanks and a byte order mark", "counted", (usage) => ({
    value: `\uFEFF ${JSON.stringify(cloudEvent(usage), null, 2)}\n`,
  })),
  ownEvent("structured with extensions and other headers", "counted", (usage) => ({
    value: JSON.stringify(cloudEvent(usage, { traceparent: "00-ab", team: "a" })),
    headers: { "x-team": "a", __proto__x: "b", twice: ["1", "2"] },
  })),
  ownEvent("binary", "counted", (usage) => binary(usage)),
  ownEvent("binary without content type", "counted", ({ ...usage }) => {
    const { value, headers } = binary(usage);
    const { "content-type": _, ...rest } = headers ?? {};
    return { value, headers: rest };
  }),
  ownEvent("binary with a JSON content type of its own", "counted", (usage) =>
    binary(usage, { "content-type": "application/vnd.acme.usage+json; charset=utf-8" }),
  ),
  ownEvent("binary, a repeated header: the last one counts", "counted", (usage) =>
    binary(usage, { ce_id: ["not this", usage.id] }),
  ),
  ownEvent("binary with another content type", "invalid FIELD_INVALID", (usage) =>
    binary(usage, { "content-type": "text/plain" }),
  ),
  ownEvent("binary with a value that is no JSON", NOT_AN_EVENT, (usage) => ({ ...binary(usage), value: "tokens=1" })),
  ownEvent("binary with a list as data", "invalid FIELD_INVALID", (usage) => ({ ...binary(usage), value: "[1]" })),
  ownEvent("binary with a header that is no UTF-8", NOT_AN_EVENT, (usage) =>
    binary(usage, { ce_id: Buffer.from([0xff, 0xfe]) }),
  ),
  ownEvent("binary with an empty identity", "invalid FIELD_INVALID", (usage) => binary(usage, { ce_subject: "" })),
  ownEvent("binary with a forbidden name", "invalid NAME_FORBIDDEN", (usage) =>
    binary(usage, { ["ce___proto__"]: "x" }),
  ),
  ownEvent("a batch of events in one record", NOT_AN_EVENT, (usage) => ({
    value: JSON.stringify([cloudEvent(usage)]),
    headers: { "content-type": "application/cloudevents-batch+json" },
  })),
  ownEvent("the native shape of the HTTP API", NOT_AN_EVENT, ({ customer, id, source }) => ({
    id,
    source,
    customer,
    type: "llm.request",
  })),
];

const emptyAndBroken: readonly OddRecord[] = [
  { name: "null value", value: null, fate: NOT_AN_EVENT },
  { name: "empty value", value: "", fate: NOT_AN_EVENT },
  {
    name: "garbage bytes",
    value: Buffer.from(Array.from({ length: 500 }, (_, n) => (n * 167) % 256)),
    fate: NOT_AN_EVENT,
  },
  {
    name: "invalid UTF-8 in a text",
    value: Buffer.from([...Buffer.from('{"id":"'), 0xc3, 0x28, ...Buffer.from('"}')]),
    fate: NOT_AN_EVENT,
  },
  { name: "a truncated event", value: '{"specversion":"1.0","id":"a', fate: NOT_AN_EVENT },
  { name: "a number", value: "7", fate: NOT_AN_EVENT },
  { name: "null as JSON", value: "null", fate: NOT_AN_EVENT },
  { name: "nested 100,000 levels", value: `${"[".repeat(100_000)}${"]".repeat(100_000)}`, fate: NOT_AN_EVENT },
  ownEvent("data nested 100,000 levels", "invalid DATA_TOO_DEEP", (usage) => ({
    value: JSON.stringify(cloudEvent(usage, { data: "DEEP" })).replace(
      '"DEEP"',
      `{"a":${"[".repeat(100_000)}${"]".repeat(100_000)}}`,
    ),
  })),
  { name: "an Avro header of a schema registry", value: Buffer.from([0, 0, 0, 0, 7, 12, 65, 66]), fate: NOT_AN_EVENT },
];

const attributes: readonly OddRecord[] = [
  ownEvent("without time: the append time counts", "counted", (usage) => cloudEvent(usage, { time: undefined })),
  ownEvent("without data", "counted", (usage) => cloudEvent(usage, { data: undefined })),
  ownEvent("mode live by name", "counted", (usage) => cloudEvent(usage, { mode: "live" })),
  ownEvent("an unknown mode", "invalid FIELD_INVALID", (usage) => cloudEvent(usage, { mode: "production" })),
  ownEvent("no id", "invalid FIELD_MISSING", (usage) => cloudEvent(usage, { id: undefined })),
  ownEvent("no customer", "invalid FIELD_MISSING", (usage) => cloudEvent(usage, { subject: undefined })),
  ownEvent("an id of 257 characters", "invalid FIELD_TOO_LONG", (usage) => cloudEvent(usage, { id: "x".repeat(257) })),
  ownEvent("another CloudEvents version", "invalid FIELD_INVALID", (usage) =>
    cloudEvent(usage, { specversion: "0.3" }),
  ),
  ownEvent("a time that is none", "invalid TIME_INVALID", (usage) => cloudEvent(usage, { time: "yesterday" })),
  ownEvent("a time 40 days ago", "too_late", (usage) => cloudEvent(usage, { time: daysFromNow(-40) })),
  ownEvent("a time in the year 1", "invalid TIME_INVALID", (usage) =>
    cloudEvent(usage, { time: "0001-01-01T00:00:00Z" }),
  ),
  ownEvent("a time tomorrow", "too_early", (usage) => cloudEvent(usage, { time: daysFromNow(1) })),
  ownEvent("a time in the year 9999", "too_early", (usage) => cloudEvent(usage, { time: "9999-12-31T23:59:59Z" })),
  ownEvent("an attribute in capitals", "invalid FIELD_UNKNOWN", (usage) => cloudEvent(usage, { traceParent: "a" })),
  ownEvent("33 properties", "invalid DATA_TOO_MANY_PROPERTIES", (usage) =>
    cloudEvent(usage, { data: Object.fromEntries(Array.from({ length: 33 }, (_, n) => [`p${n}`, n])) }),
  ),
  ownEvent("a metered value that is no quantity", "invalid METER_VALUE_INVALID:tokens", (usage) =>
    cloudEvent(usage, { data: { tokens: "many" } }),
  ),
  ownEvent("a metered value too large for a quantity", "invalid METER_VALUE_INVALID:tokens", (usage) => ({
    value: JSON.stringify(cloudEvent(usage, { data: "BIG" })).replace('"BIG"', '{"tokens":1e400}'),
  })),
  ownEvent("a dimension with half a surrogate pair and a null character", "counted", (usage) =>
    cloudEvent(usage, { data: { tokens: usage.tokens, model: "\uD800\u0000" } }),
  ),
  ownEvent("another type than any meter's", "counted", (usage) => cloudEvent(usage, { type: "door.opened" })),
];

const sizes: readonly OddRecord[] = [
  ownEvent("as large as a record may be", "counted", (usage) => ({
    value: JSON.stringify(cloudEvent(usage)).padEnd(RECORD_BYTES_MAX - 100),
  })),
  ownEvent("one byte too large", "invalid EVENT_TOO_LARGE", (usage) => ({
    value: JSON.stringify(cloudEvent(usage)).padEnd(RECORD_BYTES_MAX + 1),
  })),
  ownEvent("headers that are too large", "invalid EVENT_TOO_LARGE", (usage) => ({
    value: JSON.stringify(cloudEvent(usage)),
    headers: { padding: "x".repeat(1_500_000) },
  })),
  ownEvent("more headers than a record may have", "invalid EVENT_TOO_LARGE", (usage) => ({
    value: JSON.stringify(cloudEvent(usage)),
    headers: Object.fromEntries(Array.from({ length: 70_000 }, (_, n) => [`h${n}`, ""])),
  })),
];

const control: readonly OddRecord[] = [
  { name: "an unsigned tick", value: "{}", headers: { "tallyhouse-control": "tick" }, fate: FORGED },
  {
    name: "an activation with an invented signature",
    value: '{"mode":"live","meter":"tokens","version":9,"rule":{}}',
    headers: { "tallyhouse-control": "meter.activate", "tallyhouse-control-mac": `k1:${"0".repeat(64)}` },
    fate: FORGED,
  },
  { name: "a control record without a value", value: null, headers: { "tallyhouse-control": "tick" }, fate: FORGED },
  ownEvent("a usage event that claims to be control", FORGED, (usage) => ({
    value: JSON.stringify(cloudEvent(usage)),
    headers: { "tallyhouse-control": "" },
  })),
];

function daysFromNow(days: number): string {
  return new Date(Date.now() + days * 86_400_000).toISOString();
}

/** All of them. */
export const ODD_RECORDS: readonly OddRecord[] = [
  ...contentModes,
  ...emptyAndBroken,
  ...attributes,
  ...sizes,
  ...control,
];
