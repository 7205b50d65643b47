/** `POST /admin/v1/simulate`: past usage under other plans, as a stream of lines. Nothing is stored. */
import { Readable } from "node:stream";
import { type BillingPorts, readPlanVersions, simulate, type SimulationLine, type Trial } from "@tallyhouse/billing";
import { type Authenticator, DAY_MS, type FieldIssue, type Mode, TallyhouseError } from "@tallyhouse/domain";
import { resolveMeters } from "@tallyhouse/plans";
import type { Clock, Logger } from "@tallyhouse/runtime";
import type { FastifyInstance } from "fastify";
import { z } from "zod";
import { authenticate } from "./auth.ts";
import { readKnownMeters } from "./plans/catalogue-store.ts";
import { type FileReading, readFile } from "./plans/plans-routes.ts";
import { type FieldProblem, fieldProblemsOf, type Problem, sendProblem } from "./problem.ts";
import { instant } from "./usage-request.ts";

/** What-ifs at a time: each holds a page of customers and reads for seconds. */
const SIMULATIONS_MAX = 1;
const BUSY_RETRY_SECONDS = 10;
const SPAN_DAYS_MAX = 400;

/** Body of `POST /admin/v1/simulate`. */
export const SimulateBodySchema = z.strictObject({
  file: z.string({ error: "is the text of a plans file" }),
  from: instant,
  to: instant,
  map: z.record(z.string(), z.string()).default({}),
});

type SimulatePorts = BillingPorts & {
  readonly authenticator: Authenticator;
  readonly clock: Clock;
  readonly logger: Logger;
};
type Request = { readonly fromAt: number; readonly toAt: number; readonly trial: Trial };
type Reading =
  | { readonly kind: "request"; readonly request: Request }
  | { readonly kind: "problem"; readonly problem: Problem };

/** Adds the route. Its answer is NDJSON, because it may take a while; whoever goes away ends the reading. */
export function addSimulateRoute(app: FastifyInstance, ports: SimulatePorts): void {
  let running = 0;
  app.post("/admin/v1/simulate", async (request, reply) => {
    const auth = await authenticate(request, ports.authenticator);
    if (auth.kind === "problem") return sendProblem(reply, auth.problem);
    const { mode } = auth.principal;
    const reading = await readRequest(request.body, ports, mode);
    if (reading.kind === "problem") return sendProblem(reply, reading.problem);
    if (running >= SIMULATIONS_MAX) {
      const detail = "another what-if is running; try again";
      return sendProblem(reply, { status: 503, code: "SIMULATE_BUSY", detail, retryAfterSeconds: BUSY_RETRY_SECONDS });
    }
    running += 1;
    const lines = Readable.from(textOf(simulate(ports, { mode, ...reading.request })));
    lines.once("close", () => {
      running -= 1;
    });
    return reply.type("application/x-ndjson").send(lines);
  });

  /** An outage in the middle of an answer is its last line: the status is sent already. */
  async function* textOf(lines: AsyncGenerator<SimulationLine>): AsyncGenerator<string> {
    try {
      for await (const line of lines) yield `${JSON.stringify(line)}\n`;
    } catch (error) {
      if (!(error instanceof TallyhouseError) || error.action !== "retry") throw error;
      ports.logger.warn({ code: error.code, err: error }, "a what-if was cut off");
      const detail = "a store does not answer; nothing was changed, try again";
      yield `${JSON.stringify({ kind: "problem", detail } satisfies SimulationLine)}\n`;
    }
  }
}

/** Everything that is wrong with the body; of the file, with lines. */
async function readRequest(body: unknown, { control, clock }: SimulatePorts, mode: Mode): Promise<Reading> {
  const parsed = SimulateBodySchema.safeParse(body);
  if (!parsed.success) return { kind: "problem", problem: bodyInvalid(fieldProblemsOf(parsed.error, "/")) };
  const { from: fromAt, to: toAt, map } = parsed.data;
  const reading = readFile(parsed.data.file);
  if (reading.kind === "problem") return reading;
  const meters = await readKnownMeters(control, mode, clock.now());
  const plans: [string, { plan: FileReading["file"]["plans"][number]; meterVersions: Record<string, number> }][] = [];
  const issues: FieldIssue[] = [];
  for (const plan of reading.file.plans) {
    const resolution = resolveMeters(plan.items, meters);
    issues.push(...resolution.issues.map(({ path, rule }) => ({ path: ["plans", plan.key, ...path], rule })));
    plans.push([plan.key, { plan, meterVersions: { ...resolution.meterVersions } }]);
  }
  if (issues.length > 0) {
    const detail = "the plans file names meters that this mode cannot bill by";
    return {
      kind: "problem",
      problem: { status: 400, code: "PLANS_INVALID", detail, problems: issues.map(reading.at) },
    };
  }
  const known = new Set((await readPlanVersions(control, mode)).map(({ key }) => key));
  const wrong = [...spanProblems(fromAt, toAt), ...mapProblems(map, known, new Set(plans.map(([key]) => key)))];
  if (wrong.length > 0) return { kind: "problem", problem: bodyInvalid(wrong) };
  return {
    kind: "request",
    request: { fromAt, toAt, trial: { plans: new Map(plans), moves: new Map(Object.entries(map)) } },
  };
}

function spanProblems(fromAt: number, toAt: number): FieldProblem[] {
  if (fromAt >= toAt) return [{ field: "/from", rule: "must be before to" }];
  if (toAt - fromAt <= SPAN_DAYS_MAX * DAY_MS) return [];
  return [{ field: "/from", rule: `must be at most ${SPAN_DAYS_MAX} days before to` }];
}

function mapProblems(
  map: Readonly<Record<string, string>>,
  known: ReadonlySet<string>,
  filed: ReadonlySet<string>,
): FieldProblem[] {
  return Object.entries(map).flatMap(([before, after]) => [
    ...(known.has(before) ? [] : [{ field: `/map/${before}`, rule: "is no plan of this mode" }]),
    ...(filed.has(after) ? [] : [{ field: `/map/${before}`, rule: `names "${after}", which the file does not have` }]),
  ]);
}

function bodyInvalid(problems: readonly FieldProblem[]): Problem {
  const detail = problems.map(({ field, rule }) => `${field === "/" ? "the body" : field} ${rule}`).join("; ");
  return { status: 400, code: "BODY_INVALID", detail, problems };
}
