/** `GET /v1/usage/current-period` and `GET /v1/usage/projection`: the running bill, and what it will be. */
import {
  type BillingPorts,
  readProjection,
  readRunningBill,
  type ProjectedBill,
  type RunningBill,
} from "@tallyhouse/billing";
import { type Authenticator, DAY_MS, formatInstant, formatQuantity, type Mode } from "@tallyhouse/domain";
import type { Bill } from "@tallyhouse/pricing";
import type { Clock } from "@tallyhouse/runtime";
import { readZone, type Refusal, type Zone } from "@tallyhouse/usage";
import type { FastifyInstance, FastifyRequest } from "fastify";
import { z } from "zod";
import { authenticate } from "./auth.ts";
import { readCurrentPeriod } from "./current-period.ts";
import { fieldProblemsOf, type Problem, queryInvalid, sendProblem } from "./problem.ts";

/** Query of both routes. */
export const PeriodParameters = z.strictObject({
  customer: z
    .string({ error: "is required" })
    .min(1, "is required")
    .max(256, "has at most 256 characters")
    // PostgreSQL takes no NUL, and no id has any of them.
    .refine((text) => !/\p{Cc}/u.test(text), "must hold no control characters"),
  tz: z.string().max(64).optional(),
});

/** A projection looks four weeks back from the period's start at most; a day more on both sides for every zone. */
const ZONE_MARGIN_MS = 40 * DAY_MS;

type Ports = BillingPorts & { readonly authenticator: Authenticator; readonly clock: Clock };
type Reading =
  | {
      readonly kind: "running";
      readonly running: RunningBill;
      readonly zone: Zone;
      readonly mode: Mode;
      readonly now: number;
    }
  | { readonly kind: "problem"; readonly problem: Problem };

/** Adds both routes, the first under two paths. The mode comes from the token alone. */
export function addBillingRoutes(app: FastifyInstance, ports: Ports): void {
  for (const path of ["/v1/usage/current-period", "/api/usage/current-period"]) {
    app.get(path, async (request, reply) => {
      const asked = await readRunning(request, ports);
      if (asked.kind === "problem") return sendProblem(reply, asked.problem);
      const reading = await readCurrentPeriod(ports, asked);
      return reading.kind === "answer" ? reply.send(reading.answer) : sendProblem(reply, unreadable(reading));
    });
  }

  app.get("/v1/usage/projection", async (request, reply) => {
    const asked = await readRunning(request, ports);
    if (asked.kind === "problem") return sendProblem(reply, asked.problem);
    const reading = await readProjection(ports.analytics, asked);
    if (reading.kind === "refused") return sendProblem(reply, unreadable(reading));
    return reply.send(projectionOf(asked.running, reading.projection));
  });
}

async function readRunning(request: FastifyRequest, ports: Ports): Promise<Reading> {
  const auth = await authenticate(request, ports.authenticator);
  if (auth.kind === "problem") return auth;
  const parsed = PeriodParameters.safeParse(request.query);
  if (!parsed.success) return { kind: "problem", problem: queryInvalid(fieldProblemsOf(parsed.error, ".")) };
  const { customer, tz } = parsed.data;
  const { mode } = auth.principal;
  const now = ports.clock.now();
  const reading = await readRunningBill(ports, { mode, customer, at: now });
  switch (reading.kind) {
    case "unknown":
      return { kind: "problem", problem: customerUnknown(customer, mode) };
    case "no_plan":
      return { kind: "problem", problem: planMissing(customer) };
    case "refused":
      return { kind: "problem", problem: unreadable(reading) };
    case "running": {
      const { running } = reading;
      const { startAt, endAt } = running.period;
      const zone = readZone(tz ?? running.customer.zone, {
        fromAt: startAt - ZONE_MARGIN_MS,
        toAt: endAt + ZONE_MARGIN_MS,
      });
      if (zone.kind === "refused")
        return { kind: "problem", problem: queryInvalid([{ field: "tz", rule: zone.rule }]) };
      return { kind: "running", running, zone: zone.zone, mode, now };
    }
  }
}

function projectionOf(running: RunningBill, projection: ProjectedBill): object {
  const { period, rated, watermarkAt } = running;
  const { low, likely, high } = projection;
  const amountOf = ({ total, totalMinor }: Bill): object => ({ amount: total, amountMinor: totalMinor });
  const estimates = new Map(projection.items.map((item) => [item.item, item]));
  return {
    estimate: true,
    period: { start: formatInstant(period.startAt), end: formatInstant(period.endAt) },
    plan: rated.plan,
    currency: rated.currency,
    low: amountOf(low),
    likely: amountOf(likely),
    high: amountOf(high),
    lines: likely.lines.map(({ key, meter }, index) => {
      const item = estimates.get(key);
      const [used, method] = item === undefined ? ["1", "fee"] : [formatQuantity(item.used), item.method];
      const side = (bill: Bill): object => {
        const line = bill.lines[index];
        return { quantity: line?.quantity, amount: line?.amount };
      };
      return { key, meter, method, used, low: side(low), likely: side(likely), high: side(high) };
    }),
    asOf: watermarkAt === null ? null : formatInstant(watermarkAt),
  };
}

function customerUnknown(customer: string, mode: Mode): Problem {
  const detail = `mode ${mode} has no customer "${customer}"; tallyhouse customers list shows those it has`;
  return { status: 404, code: "CUSTOMER_UNKNOWN", detail };
}

function planMissing(customer: string): Problem {
  const detail = `customer "${customer}" is on no plan now, so no period is running; tallyhouse customers set-plan gives it one`;
  return { status: 409, code: "PLAN_MISSING", detail };
}

function unreadable({ items, refusal }: { readonly items: readonly string[]; readonly refusal: Refusal }): Problem {
  const whys = {
    rows: "its usage has too many different dimension values to answer at once",
    events: "too many single usage events would have to be looked at, at the period's edges and in corrected windows",
    expired: "the period reaches back to where single usage events are no longer kept, and some of them are needed",
  } as const;
  return { status: 409, code: "PERIOD_UNREADABLE", detail: `item ${items.join(", ")}: ${whys[refusal.kind]}` };
}
