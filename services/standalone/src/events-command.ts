/** `tallyhouse events …`: corrections and questions about single usage events, as a client of a running Tallyhouse. */
import { readFileSync } from "node:fs";
import { userInfo } from "node:os";
import { parseArgs } from "node:util";
import { isJsonObject, type JsonObject, modeOfServiceToken, parseJson } from "@tallyhouse/domain";
import { type Environment, pause } from "@tallyhouse/runtime";
import { ApiError, callApi, tokenOf } from "./client.ts";
import { UsageError } from "./meters-command.ts";

/** Lines of the usage text. */
export const EVENTS_USAGE = `  tallyhouse events find SOURCE ID --customer C [--mode live|test] [--json]
                                      what became of a usage event, where it counts, what Stripe has of it
  tallyhouse events void SOURCE ID --customer C --reason R [--actor A]
                                      take a counted usage event back
  tallyhouse events replace SOURCE ID --customer C --reason R --event FILE|- [--actor A]
                                      take it back and count another in its place (native shape: type, time, data)
  tallyhouse events corrections [--customer C] [--json]
                                      what was corrected, by whom, why, and whether it has taken effect
  tallyhouse events sweep             take back what counted twice beyond the dedupe horizon, now`;

const SWEEP_POLL_MS = 500;
/** A sweep of a large table takes minutes; it goes on when the command stops waiting. */
const SWEEP_WAIT_POLLS_MAX = 7_200;

interface Context {
  readonly env: Environment;
  readonly write: (text: string) => void;
}

/** Runs `events …`. The exit code: 0 done. @throws {ApiError} what Tallyhouse refuses; {UsageError} wrong use. */
export async function runEvents(args: readonly string[], context: Context): Promise<number> {
  const [verb, ...rest] = args;
  const { values, positionals } = parseArgs({
    args: [...rest],
    allowPositionals: true,
    options: {
      customer: { type: "string" },
      mode: { type: "string" },
      reason: { type: "string" },
      actor: { type: "string" },
      event: { type: "string" },
      json: { type: "boolean", default: false },
    },
  });
  switch (verb) {
    case "find":
      return find(identityOf(positionals, values.customer), { ...values, ...context });
    case "void":
    case "replace":
      return correct({ verb, identity: identityOf(positionals, values.customer) }, { ...values, ...context });
    case "corrections":
      return list(values.customer, { json: values.json, ...context });
    case "sweep":
      return sweep(context);
    case undefined:
    default:
      throw new UsageError("events needs find, void, replace, corrections or sweep");
  }
}

interface Identity {
  readonly customer: string;
  readonly source: string;
  readonly id: string;
}

function identityOf(positionals: readonly string[], customer: string | undefined): Identity {
  const [source, id, ...more] = positionals;
  if (source === undefined || id === undefined || more.length > 0)
    throw new UsageError('events needs SOURCE and ID; the source is "api" unless the sender named one');
  return { customer: required("--customer", customer), source, id };
}

function required(option: string, value: string | undefined): string {
  if (value === undefined || value === "") throw new UsageError(`${option} is required`);
  return value;
}

interface ShownCorrection {
  readonly id: number;
  readonly kind: string;
  readonly state: string;
  readonly event: Identity;
  readonly reason: string;
  readonly actor: string;
  readonly createdAt: string;
  readonly after: JsonObject | null;
}

function correctionLine({ id, kind, state, event, after, actor, createdAt, reason }: ShownCorrection): string {
  const what = `${event.customer} ${event.source} ${event.id}`;
  const replacement = after === null ? "" : ` → ${String(after["id"])}`;
  return `${id}  ${createdAt}  ${kind.padEnd(7)}  ${state.padEnd(8)}  ${what}${replacement}  by ${actor}: ${reason}\n`;
}

/** Source and id travel in the body, which carries any of them. */
async function correct(
  { verb, identity }: { readonly verb: "void" | "replace"; readonly identity: Identity },
  options: Context & {
    readonly reason?: string | undefined;
    readonly actor?: string | undefined;
    readonly event?: string | undefined;
  },
): Promise<number> {
  const { env, write } = options;
  const reason = required("--reason", options.reason);
  const actor = options.actor ?? userInfo().username;
  if (verb === "void" && options.event !== undefined) throw new UsageError("--event belongs to replace");
  const event = verb === "replace" ? readEvent(required("--event", options.event)) : null;
  const correction = await callApi<ShownCorrection>(env, {
    method: "POST",
    path: `/admin/v1/events/${verb}`,
    body: { ...identity, reason, actor, ...(event === null ? {} : { event }) },
  });
  write(correctionLine(correction));
  return 0;
}

/** Numbers keep the digits of the file: they never pass through a double. */
function readEvent(file: string): JsonObject {
  const place = file === "-" ? "standard input" : file;
  let text: string;
  try {
    text = readFileSync(file === "-" ? 0 : file, "utf8");
  } catch (error) {
    throw new UsageError(`cannot read ${place}: ${error instanceof Error ? error.message : String(error)}`);
  }
  try {
    const event = parseJson(text);
    if (isJsonObject(event)) return event;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new UsageError(`${place} is no JSON: ${error.message}`);
  }
  throw new UsageError(`${place} holds no JSON object`);
}

async function list(
  customer: string | undefined,
  { env, write, json }: Context & { readonly json: boolean },
): Promise<number> {
  const query = customer === undefined ? "" : `?customer=${encodeURIComponent(customer)}`;
  const path = `/admin/v1/corrections${query}`;
  const answer = await callApi<{ corrections: readonly ShownCorrection[] }>(env, { method: "GET", path });
  if (json) write(`${JSON.stringify(answer, null, 2)}\n`);
  else if (answer.corrections.length === 0) write("nothing was corrected\n");
  else for (const correction of answer.corrections) write(correctionLine(correction));
  return 0;
}

interface Found {
  readonly asOf: string | null;
  readonly hasMore: boolean;
  readonly records: readonly {
    readonly record: { readonly stream: number; readonly partition: number; readonly offset: number };
    readonly acceptedAt: string;
    readonly bookedAt: string;
    readonly occurredAt: string;
    readonly type: string;
    readonly status: string;
    readonly meaning: string;
    readonly payload: string;
    readonly countedIn: readonly {
      readonly meter: string;
      readonly version: number;
      readonly windowStart: string;
      readonly dimensions: Readonly<Record<string, string>>;
      readonly quantity: string | null;
      readonly value: string | null;
      readonly lane: string;
    }[];
  }[];
  readonly corrections: readonly ShownCorrection[];
  readonly ledger: readonly {
    readonly meter: string;
    readonly version: number;
    readonly state: string;
    readonly quantity: string;
    readonly bucketStart: string;
    readonly identifier: string;
  }[];
}

async function find(
  identity: Identity,
  options: Context & { readonly mode?: string | undefined; readonly json: boolean },
): Promise<number> {
  const { env, write, mode, json } = options;
  const tokenMode = modeOfServiceToken(tokenOf(env) ?? "");
  if (mode !== undefined && mode !== tokenMode)
    throw new ApiError(
      `the token is one of mode ${tokenMode ?? "unknown"}, not ${mode}: set TALLYHOUSE_TOKEN to one that is`,
    );
  const query = new URLSearchParams({ ...identity });
  const found = await callApi<Found>(env, { method: "GET", path: `/v1/usage/events?${query.toString()}` });
  write(json ? `${JSON.stringify(found, null, 2)}\n` : textOf(found));
  return 0;
}

function textOf({ asOf, records, hasMore, corrections, ledger }: Found): string {
  const lines = records.flatMap((row) => [
    `${row.status}: ${row.meaning}`,
    `  accepted ${row.acceptedAt}, occurred ${row.occurredAt}, booked ${row.bookedAt}`,
    `  in the log at stream ${row.record.stream}, partition ${row.record.partition}, offset ${row.record.offset}; type ${row.type}`,
    `  ${row.payload}`,
    ...row.countedIn.map(({ meter, version, windowStart, dimensions, quantity, value, lane }) => {
      const names = Object.entries(dimensions).map(([name, text]) => ` ${name}=${JSON.stringify(text)}`);
      const what = quantity ?? `value ${JSON.stringify(value)}`;
      return `  counts in ${meter} v${version}, window ${windowStart}: ${what}${names.join("")}${lane === "live" ? "" : ` (${lane})`}`;
    }),
  ]);
  if (hasMore) lines.push("… and more records");
  for (const correction of corrections) lines.push(`correction ${correctionLine(correction).trimEnd()}`);
  for (const row of ledger)
    lines.push(
      `ledger: ${row.meter} v${row.version}, hour ${row.bucketStart}: ${row.quantity} ${row.state} (${row.identifier})`,
    );
  lines.push(
    asOf === null
      ? "Not every partition is stored yet."
      : `Everything the log received before ${asOf} is in this answer.`,
  );
  return `${lines.join("\n")}\n`;
}

interface ShownSweep {
  readonly id: number;
  readonly state: "waiting" | "finished";
  readonly repeated?: number;
  readonly voided?: number;
  readonly leftOver?: number;
}

async function sweep({ env, write }: Context): Promise<number> {
  const path = "/admin/v1/sweeps";
  const { id } = await callApi<ShownSweep>(env, { method: "POST", path, body: {} });
  for (let poll = 0; poll < SWEEP_WAIT_POLLS_MAX; poll += 1) {
    const { sweeps } = await callApi<{ sweeps: readonly ShownSweep[] }>(env, { method: "GET", path });
    const run = sweeps.find((each) => each.id === id);
    if (run?.state === "finished") {
      const { repeated = 0, voided = 0, leftOver = 0 } = run;
      write(
        `sweep ${id}: ${repeated} identities counted more than once, ${voided} usage events taken back, ${leftOver} left\n`,
      );
      return 0;
    }
    await pause(SWEEP_POLL_MS);
  }
  throw new ApiError(`sweep ${id} still runs; GET ${path} shows when it is finished`);
}
