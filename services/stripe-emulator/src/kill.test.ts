import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { Stripe } from "stripe";
import { afterEach, beforeEach, expect, it } from "vitest";
import type { Truth } from "./index.ts";

const ROUNDS = 4;
const SENDERS = 16;
/** Answers after which the process is killed; the first kill comes while the group commit is busiest. */
const ANSWERS_BEFORE_KILL = [1, 97, 411, 733];

let folder: string;
let child: ChildProcess | undefined;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "emulator-kill-"));
});
afterEach(async () => {
  await stop("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});

async function start(): Promise<{ readonly stripe: Stripe; readonly truth: () => Promise<Truth> }> {
  const main = fileURLToPath(new URL("main.ts", import.meta.url));
  const args = [main, "--port", "0", "--data", folder, "--seed", "kill", "--limits", "off"];
  child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  if (child.stdout === null) throw new Error("the child has no output");
  const [line] = (await once(createInterface(child.stdout), "line")) as [string];
  const url = new URL(/http:\S+(?=,)/.exec(line)?.[0] ?? "");
  const config = {
    host: url.hostname,
    port: url.port,
    protocol: "http",
    telemetry: false,
    maxNetworkRetries: 0,
  } as const;
  return {
    stripe: new Stripe("sk_test_kill", config),
    truth: async () => (await (await fetch(new URL("/_emulator/truth", url))).json()) as Truth,
  };
}

async function stop(signal: "SIGKILL" | "SIGTERM"): Promise<number | null> {
  if (child === undefined || child.exitCode !== null || child.signalCode !== null) return null;
  const exited = once(child, "exit");
  child.kill(signal);
  const [code] = (await exited) as [number | null];
  return code;
}

it("keeps every acknowledged event exactly once and invents none, through kill -9 under load", async () => {
  const sent = new Set<string>();
  const answered = new Set<string>();
  const { stripe } = await start();
  const customers: string[] = [];
  for (let at = 0; at < SENDERS; at += 1) customers.push((await stripe.customers.create({ name: `c${at}` })).id);
  await stripe.billing.meters.create({ display_name: "d", event_name: "e", default_aggregation: { formula: "sum" } });
  await stop("SIGKILL");

  const send = async (client: Stripe, identifier: string): Promise<void> => {
    sent.add(identifier);
    const customer = customers[Number(identifier.split("-")[1]) % SENDERS] ?? "";
    const payload = { stripe_customer_id: customer, value: "1" };
    await client.billing.meterEvents.create({ event_name: "e", payload, identifier }, { idempotencyKey: identifier });
    answered.add(identifier);
  };

  for (let round = 0; round < ROUNDS; round += 1) {
    const running = await start();
    const before = answered.size;
    let killed: Promise<unknown> | undefined;
    await Promise.all(
      Array.from({ length: SENDERS }, async (_, sender) => {
        for (let at = 0; killed === undefined; at += 1) {
          try {
            await send(running.stripe, `${round}-${sender}-${at}`);
          } catch (error) {
            // Only the broken connection of a killed process is expected here; anything else fails the test.
            if (killed === undefined || !(error instanceof Stripe.errors.StripeConnectionError)) throw error;
          }
          if (answered.size - before >= (ANSWERS_BEFORE_KILL[round] ?? 0)) killed ??= stop("SIGKILL");
        }
      }),
    );
    await killed;
    expect(answered.size - before).toBeGreaterThanOrEqual(ANSWERS_BEFORE_KILL[round] ?? 0);

    const { truth } = await start();
    const stored = (await truth()).events.map((event) => event.identifier);
    expect(new Set(stored).size).toBe(stored.length);
    for (const identifier of answered) expect(stored).toContain(identifier);
    for (const identifier of stored) expect(sent).toContain(identifier);
    await stop("SIGKILL");
  }

  // The client repeats what was not answered, under the same keys: everything is there exactly once.
  const last = await start();
  for (const identifier of sent) if (!answered.has(identifier)) await send(last.stripe, identifier);
  const { events, totals } = await last.truth();
  expect(events.map((event) => event.fate)).toEqual(events.map(() => "counted"));
  expect(events).toHaveLength(sent.size);
  expect(totals.reduce((sum, total) => sum + Number(total.sum), 0)).toBe(sent.size);
  expect(await stop("SIGTERM")).toBe(0);
});
