import {
  type Authenticator,
  type ControlStore,
  formatInstant,
  type MeterRule,
  type Mode,
  parseMetersFile,
} from "@tallyhouse/domain";
import { type Clock, pause } from "@tallyhouse/runtime";
import type { FastifyInstance } from "fastify";
import { z } from "zod";
import { authenticate } from "./auth.ts";
import { applyMeters, diffMeters, type MeterChange, refuseOldVersions, refuseTooEarly } from "./meter-changes.ts";
import { readDefinitions } from "@tallyhouse/usage";
import { type Problem, queryInvalid, sendProblem } from "./problem.ts";
import type { UsagePorts } from "./usage.ts";

/**
 * How long an apply waits for its meters. It waits unless it is told not to: without backfill, usage that is sent after an answer
 * and yet stands before the activation in the log would be missing from the meter.
 */
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

type MetersPorts = UsagePorts & { readonly authenticator: Authenticator; readonly clock: Clock };

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
    return reply.send({ mode, changes: await diffMeters(ports.control, mode, reading.rules) });
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
    const planned = await diffMeters(ports.control, mode, rules);
    const changed = rules.filter((_rule, index) => isNewVersion(planned[index]));
    const refusal = refuseOldVersions(planned) ?? (await refuseTooEarly(ports.analytics, mode, changed));
    if (refusal !== null) return sendProblem(reply, refusal);
    const { stream, clock } = ports;
    const changes = await applyMeters(ports.control, { mode, rules, stream, now: clock.now() });
    const isActive = await waitUntilActive(ports, { mode, changes, waitMs: parameters.data.wait * 1_000 });
    return reply.code(isActive ? 200 : 202).send({ mode, state: isActive ? "active" : "pending", changes });
  });
}

function isNewVersion(change: MeterChange | undefined): boolean {
  return change?.change === "new" || change?.change === "new-version";
}

type RulesReading =
  | { readonly kind: "rules"; readonly rules: readonly MeterRule[] }
  | { readonly kind: "problem"; readonly problem: Problem };

/** Both forms go through the one parser of meters files: YAML reads JSON too. */
function readRules(body: unknown): RulesReading {
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
  readonly rule: MeterRule;
  readonly createdAt: string;
}

/** All versions of a mode, by key, oldest first. Rules of active versions come from the log, dimensions in their order. */
export async function listMeters(ports: UsagePorts, mode: Mode): Promise<ListedMeter[]> {
  const definitions = await readDefinitions(ports.analytics, ports.stream, { mode });
  const known = new Map(definitions.map((entry) => [`${entry.version.meter}@${entry.version.version}`, entry]));
  const rows = await readVersions(ports.control, mode);
  return rows.map(({ key, version, unit, rule, created_at: createdAt }) => {
    const definition = known.get(`${key}@${version}`);
    return {
      key,
      version,
      state: definition?.isActive === true ? "active" : "pending",
      unit,
      from: rule.from,
      rule: definition?.version.rule ?? rule,
      createdAt: formatInstant(createdAt.getTime()),
    };
  });
}

function readVersions(
  control: ControlStore,
  mode: Mode,
): Promise<{ key: string; version: number; unit: string; rule: MeterRule; created_at: Date }[]> {
  return control.query(
    "SELECT key, version, unit, rule, created_at FROM meter_version WHERE mode = $1 ORDER BY key, version",
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
