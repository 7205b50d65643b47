import { DAY_MS, floorTo, type Mode } from "@tallyhouse/domain";
import type { Clock } from "@tallyhouse/runtime";
import type { FastifyInstance } from "fastify";
import { UTC, type UsageWindow } from "@tallyhouse/usage";
import { z } from "zod";
import { listMeters } from "./meters-routes.ts";
import { type PageMeter, type PageUsage, renderPage } from "./page.ts";
import { PAGE_POLICY } from "./page-style.ts";
import { readStatus, type StatusPorts } from "./status.ts";
import { readCustomers, readUsage, type UsageAnswer, type UsagePorts } from "./usage.ts";
import type { UsageRequest } from "./usage-request.ts";

const PAGE_DAYS = 30;
const PAGE_CUSTOMERS_MAX = 20;
const PAGE_METERS_MAX = 50;

/** A link that was mistyped shows the page's defaults: a person reads it, no program. */
const PageParameters = z.object({
  mode: z.enum(["live", "test"]).catch("live"),
  meter: z.string().max(256).optional().catch(undefined),
  customer: z.string().min(1).max(256).nullable().catch(null).default(null),
  refresh: z.string().optional().catch(undefined),
});

/** The page at `/`. Without sign-in, so the console listens on a loopback address only and the gateway guards the way to it. */
export function addPageRoute(
  app: FastifyInstance,
  ports: UsagePorts & StatusPorts & { readonly clock: Clock; readonly refreshSeconds: number },
): void {
  app.get("/", async (request, reply) => {
    const { mode, meter, customer, refresh } = PageParameters.parse(request.query);
    const now = ports.clock.now();
    const status = await readStatus(ports);
    const meters = await readMeters(ports, mode);
    const active = meters.filter(({ state }) => state === "active");
    const chosen = active.find(({ key }) => key === meter) ?? active[0];
    const usage = chosen === undefined ? null : await readPageUsage(ports, { mode, meter: chosen.key, customer, now });
    const refreshSeconds = refresh === "off" ? null : ports.refreshSeconds;
    return reply
      .headers({
        "content-security-policy": PAGE_POLICY,
        "referrer-policy": "no-referrer",
      })
      .type("text/html; charset=utf-8")
      .send(renderPage({ mode, now, refreshSeconds, status, meters, usage }));
  });
}

/** The newest version of each meter that is active, or its newest at all. */
async function readMeters(ports: UsagePorts, mode: Mode): Promise<PageMeter[]> {
  const newest = new Map<string, PageMeter>();
  for (const { key, version, state, unit, rule } of await listMeters(ports, mode)) {
    if (state === "pending" && newest.get(key)?.state === "active") continue;
    const dimensions = Object.keys(rule.dimensions);
    newest.set(key, {
      key,
      version,
      state,
      unit,
      dimensions,
      aggregation: rule.aggregation,
      eventType: rule.eventType,
    });
  }
  return [...newest.values()].slice(0, PAGE_METERS_MAX);
}

async function readPageUsage(
  ports: UsagePorts,
  input: { readonly mode: Mode; readonly meter: string; readonly customer: string | null; readonly now: number },
): Promise<PageUsage | null> {
  const { mode, meter, customer, now } = input;
  const toAt = floorTo(now, DAY_MS) + DAY_MS;
  const range = { fromAt: toAt - PAGE_DAYS * DAY_MS, toAt, version: undefined };
  const ask = async (window: UsageWindow): Promise<UsageAnswer | null> => {
    const request: UsageRequest = { ...range, mode, meter, customer, window, zone: UTC, groupBy: [], knownAt: null };
    const reading = await readUsage(request, ports);
    return reading.kind === "answer" ? reading.answer : null;
  };
  const daily = await ask("day");
  const total = await ask("total");
  const top = await readCustomers({ ...range, mode, meter, limit: PAGE_CUSTOMERS_MAX }, ports);
  if (daily === null || top.kind === "problem") return null;
  const byDay = new Map(daily.data.map(({ start, quantity }) => [start.slice(0, 10), quantity]));
  const days = Array.from({ length: PAGE_DAYS }, (_, index) => {
    const day = new Date(range.fromAt + index * DAY_MS).toISOString().slice(0, 10);
    return { day, quantity: byDay.get(day) ?? null };
  });
  return {
    meter,
    unit: daily.unit,
    customer,
    total: total?.data[0]?.quantity ?? null,
    days,
    customers: top.answer.data,
    isBackfilling: daily.backfilling === true,
  };
}
