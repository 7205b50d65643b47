/** `POST /admin/v1/meters/check`: what the rules of a file would have counted, as a stream of lines. */
import { Readable } from "node:stream";
import { TallyhouseError } from "@tallyhouse/domain";
import type { Logger } from "@tallyhouse/runtime";
import type { FastifyInstance } from "fastify";
import { authenticate } from "./auth.ts";
import { type CheckLine, checkMeters } from "./meter-check.ts";
import { type MetersPorts, readRules } from "./meters-routes.ts";
import { sendProblem } from "./problem.ts";
import { readCheckSpan } from "./usage-request.ts";

/** Checks at a time: each holds one page and reads for minutes. */
const CHECKS_MAX = 2;
const BUSY_RETRY_SECONDS = 10;

/**
 * Adds the route. Its answer is NDJSON, because it may take minutes: a line of progress with every page keeps every wait on the way
 * short, and whoever goes away ends the reading.
 */
export function addCheckRoute(app: FastifyInstance, ports: MetersPorts & { readonly logger: Logger }): void {
  let running = 0;
  app.post("/admin/v1/meters/check", async (request, reply) => {
    const auth = await authenticate(request, ports.authenticator);
    if (auth.kind === "problem") return sendProblem(reply, auth.problem);
    const span = readCheckSpan(request.query);
    if (span.kind === "problem") return sendProblem(reply, span.problem);
    const reading = readRules(request.body);
    if (reading.kind === "problem") return sendProblem(reply, reading.problem);
    if (running >= CHECKS_MAX) {
      const detail = `${CHECKS_MAX} checks are running; try again`;
      return sendProblem(reply, { status: 503, code: "CHECK_BUSY", detail, retryAfterSeconds: BUSY_RETRY_SECONDS });
    }
    running += 1;
    const { mode } = auth.principal;
    const lines = Readable.from(textOf(checkMeters(ports.analytics, { mode, rules: reading.rules, ...span.request })));
    lines.once("close", () => {
      running -= 1;
    });
    return reply.type("application/x-ndjson").send(lines);
  });

  /** An outage in the middle of an answer is its last line: the status is sent already. */
  async function* textOf(lines: AsyncGenerator<CheckLine>): AsyncGenerator<string> {
    try {
      for await (const line of lines) yield `${JSON.stringify(line)}\n`;
    } catch (error) {
      if (!(error instanceof TallyhouseError) || error.action !== "retry") throw error;
      ports.logger.warn({ code: error.code, err: error }, "a check of meters was cut off");
      yield `${JSON.stringify({ kind: "problem", detail: "a store does not answer; nothing was changed, try again" } satisfies CheckLine)}\n`;
    }
  }
}
