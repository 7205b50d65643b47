import {
  type Authenticator,
  type ControlStore,
  type DeclaredMeter,
  formatInstant,
  type MeterRule,
  type Mode,
  parseInstant,
  parseMetersFile,
  unreachable,
} from "@tallyhouse/domain";
import { type Clock, pause } from "@tallyhouse/runtime";
import { readDefinitions } from "@tallyhouse/usage";
import type { FastifyInstance } from "fastify";
import { z } from "zod";
import { authenticate } from "./auth.ts";
import { applyMeters, diffMeters, endMeter, type MeterChange, refuseOldVersions } from "./meter-changes.ts";
import { endKeyOf, readStoredEnds, type ShownEnd, shownEnd } from "./meter-ends.ts";
import { type Problem, queryInvalid, sendProblem } from "./problem.ts";
import type { UsagePorts } from "./usage.ts";

/** How long an apply waits for its meters, so that a question that follows the answer finds them. */
const WAIT_SECONDS_DEFAULT = 5;
const WAIT_SECONDS_MAX = 20;
/** How often a waiting apply looks. */
const WAIT_POLL_MS = 50;

/** A meters file as text, or its meters. */
export const MetersBodySchema = z.union([
  z.strictObject({ file: z.string() }),
  z.strictObject({ meters: z.array(z.unknown()) }),
]);
/** Query of `POST /admin/v1/meters/apply`. */
export const ApplyParameters = z.strictObject({
  wait: z
    .string()
    .regex(/^\d{1,3}s$/, "must be a number of seconds such as 5s, or 0s")
    .transform((text) => Number(text.slice(0, -1)))
    .refine((seconds) => seconds <= WAIT_SECONDS_MAX, `must be at most ${WAIT_SECONDS_MAX}s`)
    .default(WAIT_SECONDS_DEFAULT),
});

/** Body of `POST /admin/v1/meters/{key}/end`. */
export const EndBodySchema = z.strictObject({
  until: z
    .string()
    .refine((text) => parseInstant(text) !== null, "must be an RFC 3339 instant such as 2026-12-01T00:00:00Z")
    .describe("default: the earliest instant that is possible")
    .optional(),
});

/** What the routes of meters work with. */
export type MetersPorts = UsagePorts & {
  readonly authenticator: Authenticator;
  readonly clock: Clock;
  /** How far ahead usage may occur. */
  readonly maxAheadMs: number;
};

/** `/admin/v1/meters`: versions, diff and apply. The mode comes from the service token alone. */
export function addMeterRoutes(app: FastifyInstance, ports: MetersPorts): void {
  app.get("/admin/v1/meters", async (request, reply) => {
    const auth = await authenticate(request, ports.authenticator);
    if (auth.kind === "problem") return sendProblem(reply, auth.problem);
    const { mode } = auth.principal;
    return reply.send({ mode, meters: await listMeters(ports, mode) });
  });

  app.post("/admin/v1/meters/diff", async (request, reply) => {
    const auth = await authenticate(request, ports.authenticator);
    if (auth.kind === "problem") return sendProblem(reply, auth.problem);
    const reading = readRules(request.body);
    if (reading.kind === "problem") return sendProblem(reply, reading.problem);
    const { mode } = auth.principal;
    const { rules } = reading;
    return reply.send({ mode, changes: await diffMeters(ports.control, mode, { ...timeOf(ports), rules }) });
  });

  app.post("/admin/v1/meters/apply", async (request, reply) => {
    const auth = await authenticate(request, ports.authenticator);
    if (auth.kind === "problem") return sendProblem(reply, auth.problem);
    const parameters = ApplyParameters.safeParse(request.query);
    if (!parameters.success) {
      const [issue] = parameters.error.issues;
      return sendProblem(reply, queryInvalid([{ field: "wait", rule: issue?.message ?? "is wrong" }]));
    }
    const reading = readRules(request.body);
    if (reading.kind === "problem") return sendProblem(reply, reading.problem);
    const { mode } = auth.principal;
    const { rules } = reading;
    const time = timeOf(ports);
    const refusal = refuseOldVersions(await diffMeters(ports.control, mode, { ...time, rules }));
    if (refusal !== null) return sendProblem(reply, refusal);
    const changes = await applyMeters(ports.control, { ...time, mode, rules, stream: ports.stream });
    const isActive = await waitUntilActive(ports, { mode, changes, waitMs: parameters.data.wait * 1_000 });
    return reply.code(isActive ? 200 : 202).send({ mode, state: isActive ? "active" : "pending", changes });
  });

  addEndRoute(app, ports);
}

/** Ends a meter without a successor. */
function addEndRoute(app: FastifyInstance, ports: MetersPorts): void {
  app.post<{ Params: { key: string } }>("/admin/v1/meters/:key/end", async (request, reply) => {
    const auth = await authenticate(request, ports.authenticator);
    if (auth.kind === "problem") return sendProblem(reply, auth.problem);
    const body = EndBodySchema.safeParse(request.body ?? {});
    if (!body.success) {
      const detail = `the body is { "until"?: instant }: ${body.error.issues[0]?.message ?? "it is wrong"}`;
      return sendProblem(reply, { status: 400, code: "BODY_INVALID", detail });
    }
    const { mode } = auth.principal;
    const { key } = request.params;
    const { stream } = ports;
    const outcome = await endMeter(ports.control, { ...timeOf(ports), mode, key, until: body.data.until, stream });
    switch (outcome.kind) {
      case "ended":
        return reply.send({ mode, key, ends: outcome.ends });
      case "unknown": {
        const detail = `there is no meter "${key}" in mode ${mode}; GET /admin/v1/meters lists what exists`;
        return sendProblem(reply, { status: 404, code: "METER_UNKNOWN", detail });
      }
      case "refused":
        return sendProblem(reply, { status: 409, code: "METER_END_REFUSED", detail: outcome.detail });
      default:
        return unreachable(outcome);
    }
  });
}

function timeOf({ clock, maxAheadMs }: MetersPorts): { now: number; maxAheadMs: number } {
  return { now: clock.now(), maxAheadMs };
}

type RulesReading =
  | { readonly kind: "rules"; readonly rules: readonly DeclaredMeter[] }
  | { readonly kind: "problem"; readonly problem: Problem };

/** Both forms go through the one parser of meters files: YAML reads JSON too. */
export function readRules(body: unknown): RulesReading {
  const parsed = MetersBodySchema.safeParse(body);
  if (!parsed.success) {
    const detail = 'the body is { "file": "<text of a meters file>" } or { "meters": [ … ] }';
    return { kind: "problem", problem: { status: 400, code: "BODY_INVALID", detail } };
  }
  const text =
    "file" in parsed.data
      ? parsed.data.file
      : JSON.stringify({ schema: "tallyhouse.meters/1", meters: parsed.data.meters });
  const reading = parseMetersFile(text);
  if (reading.kind === "meters") return { kind: "rules", rules: reading.rules };
  const { problems } = reading;
  const detail =
    problems.length === 1 ? "the meters file has a problem" : `the meters file has ${problems.length} problems`;
  return { kind: "problem", problem: { status: 400, code: "METERS_INVALID", detail, problems } };
}

/** One version of a meter as the admin API lists it. */
interface ListedMeter {
  readonly key: string;
  readonly version: number;
  /** `active`: every partition of the log has its activation stored. */
  readonly state: "active" | "pending";
  readonly unit: string;
  readonly from: string;
  /** null: it has no end. `stored`: every partition of the log has taken it. */
  readonly end: ShownEnd | null;
  readonly rule: MeterRule;
  readonly createdAt: string;
}

/** All versions of a mode, by key, oldest first. Rules of active versions come from the log, dimensions in their order. */
export async function listMeters(ports: UsagePorts, mode: Mode): Promise<ListedMeter[]> {
  const definitions = await readDefinitions(ports.analytics, ports.stream, { mode });
  const known = new Map(definitions.map((entry) => [`${entry.version.meter}@${entry.version.version}`, entry]));
  const ends = await readStoredEnds(ports.analytics, ports.stream);
  const rows = await readVersions(ports.control, mode);
  return rows.map(({ key, version, unit, rule, created_at: createdAt, ends_at: endsAt }) => {
    const definition = known.get(`${key}@${version}`);
    return {
      key,
      version,
      state: definition?.isActive === true ? "active" : "pending",
      unit,
      from: rule.from,
      end: endsAt === null ? null : shownEnd(endsAt.getTime(), ends.get(endKeyOf(mode, key, version)), ports.stream),
      rule: definition?.version.rule ?? rule,
      createdAt: formatInstant(createdAt.getTime()),
    };
  });
}

function readVersions(
  control: ControlStore,
  mode: Mode,
): Promise<{ key: string; version: number; unit: string; rule: MeterRule; created_at: Date; ends_at: Date | null }[]> {
  return control.query(
    "SELECT key, version, unit, rule, created_at, ends_at FROM meter_version WHERE mode = $1 ORDER BY key, version",
    [mode],
  );
}

/** Whether every named version is active in the analytics store, looked at until the time is up. */
async function waitUntilActive(
  ports: MetersPorts,
  input: { readonly mode: Mode; readonly changes: readonly MeterChange[]; readonly waitMs: number },
): Promise<boolean> {
  const endsAt = ports.clock.now() + input.waitMs;
  for (;;) {
    const definitions = await readDefinitions(ports.analytics, ports.stream, { mode: input.mode });
    const active = new Set(
      definitions.filter(({ isActive }) => isActive).map(({ version }) => `${version.meter}@${version.version}`),
    );
    if (input.changes.every(({ key, version }) => active.has(`${key}@${version}`))) return true;
    if (ports.clock.now() >= endsAt) return false;
    await pause(WAIT_POLL_MS);
  }
}
