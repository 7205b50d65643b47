/**
 * `npm run bench:ingest`: HTTP → durable. Standalone runs as its own process; this one sends. An event counts when it was
 * answered 202 and is afterwards found in raw_events by its identity.
 */
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { openStoppedFolder } from "@tallyhouse/standalone";
import { until } from "@tallyhouse/testkit";
import { benchOptions, printFigures, quantile } from "./options.ts";
import { usageStream } from "./usage-stream.ts";

const EVENTS_PER_REQUEST = 100;
const CONNECTIONS = 16;
const TOKEN = "svc_live_th_benchbenchbenchbench";
const options = benchOptions({ events: 2_000_000, seconds: 20 });
const folder = mkdtempSync(join(tmpdir(), "tallyhouse-bench-"));
const env = {
  ...process.env,
  TALLYHOUSE_DATA: folder,
  TALLYHOUSE_PORT: "0",
  TALLYHOUSE_INGEST_KEY: TOKEN,
  KAFKA_TOPIC: `usage.events.v1.bench-${randomUUID()}`,
  ...(options.log === "kafka" ? {} : { KAFKA_BROKERS: "" }),
};
const bin = new URL("../../services/standalone/bin/tallyhouse.mjs", import.meta.url).pathname;
const child = spawn(process.execPath, [bin, "start"], { env, stdio: ["ignore", "pipe", "inherit"] });
const gone = new Promise<void>((resolve) => child.once("exit", () => resolve()));
try {
  let url = "";
  for await (const line of createInterface({ input: child.stdout })) {
    url = /(http:\/\/127\.0\.0\.1:\d+)\/v1\/events/.exec(line)?.[1] ?? "";
    if (url !== "") break;
  }
  const source = usageStream({ seed: options.seed, nowAt: Date.now() });
  const acknowledged = new Set<string>();
  const latenciesMs: number[] = [];
  let sent = 0;
  let answered = 0;
  const startedAt = performance.now();
  const endsAt = startedAt + options.seconds * 1_000;
  const lane = async (): Promise<void> => {
    while (sent < options.events && performance.now() < endsAt) {
      sent += EVENTS_PER_REQUEST;
      const events = Array.from({ length: EVENTS_PER_REQUEST }, () => {
        const { value } = source.next();
        return value as { id: string; text: string };
      });
      const sentAt = performance.now();
      const answer = await fetch(`${url}/v1/events`, {
        method: "POST",
        headers: { authorization: `Bearer ${TOKEN}`, "content-type": "application/cloudevents-batch+json" },
        body: `[${events.map((event) => event.text).join(",")}]`,
      });
      await answer.arrayBuffer();
      if (answer.status !== 202) continue;
      latenciesMs.push(performance.now() - sentAt);
      answered += events.length;
      for (const event of events) acknowledged.add(event.id);
    }
  };
  await Promise.all(Array.from({ length: CONNECTIONS }, lane));
  const ingestSeconds = (performance.now() - startedAt) / 1_000;
  const status = async (): Promise<{ waiting: number }> => {
    const answer = await fetch(`${url}/admin/v1/status`, { headers: { authorization: `Bearer ${TOKEN}` } });
    return (await answer.json()) as { waiting: number };
  };
  await until(async () => (await status()).waiting === 0, { timeoutMs: 300_000, what: "nothing waits in the log" });
  const countedSeconds = (performance.now() - startedAt) / 1_000;
  child.kill("SIGTERM");
  await gone;

  const ports = await openStoppedFolder(env);
  const rows = await ports.analytics.select<{ id: string }>("SELECT id FROM raw_events FINAL WHERE status = 'counted'");
  await ports.close();
  const stored = new Set(rows.map((row) => row.id));
  const missing = [...acknowledged].filter((id) => !stored.has(id)).length;
  if (missing > 0 || rows.length !== stored.size)
    throw new Error(`not proven: ${missing} of ${acknowledged.size} answered identities are missing`);
  latenciesMs.sort((a, b) => a - b);
  printFigures({
    bench: "ingest",
    log: options.log,
    seed: options.seed,
    events: answered,
    identities: acknowledged.size,
    seconds: Number(ingestSeconds.toFixed(2)),
    eventsPerSecond: Math.round(answered / ingestSeconds),
    countedEventsPerSecond: Math.round(answered / countedSeconds),
    p50Ms: Number(quantile(latenciesMs, 0.5).toFixed(1)),
    p99Ms: Number(quantile(latenciesMs, 0.99).toFixed(1)),
    eventsPerRequest: EVENTS_PER_REQUEST,
    connections: CONNECTIONS,
    cores: cpus().length,
  });
} finally {
  child.kill("SIGKILL");
  await gone;
  rmSync(folder, { recursive: true, force: true });
}
