/**
 * kill -9 of the standalone at random moments under load, start-up included. KILLS (default 20) and SEED choose the run; a
 * failure prints both. The oracle is tools/recount.py over what was sent, in another language and without our code.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { floorTo, formatInstant, formatQuantity, HOUR_MS, parseQuantity } from "@tallyhouse/domain";
import { pause } from "@tallyhouse/runtime";
import { openStoppedFolder } from "@tallyhouse/standalone";
import { cloudEventOf, type DemoEvent, generateDay, seededRandom } from "@tallyhouse/standalone/demo";
import { until } from "@tallyhouse/testkit";
import { expect, test } from "vitest";

const SEED = Number(process.env["SEED"] ?? 1);
const KILLS = Number(process.env["KILLS"] ?? 20);
const EVENTS_PER_REQUEST = 20;
const LANES = 4;
/** A kill falls so long after the first answer of that life, or, every fifth time, after the process was started. */
const LIFE_MAX_MS = 1_500;
const ROOT = new URL("../../", import.meta.url).pathname;
const TOKEN = "svc_live_th_killtestkilltestkilltest";

test(
  `G1 G2 G5 ${KILLS} kills under load lose nothing and count nothing twice (SEED=${SEED})`,
  { timeout: 900_000 },
  async () => {
    const random = seededRandom(SEED);
    const folder = mkdtempSync(join(tmpdir(), "tallyhouse-kill-"));
    const [port, emulatorPort] = [await freePort(), await freePort()];
    const env = {
      ...process.env,
      TALLYHOUSE_DATA: folder,
      TALLYHOUSE_PORT: String(port),
      TALLYHOUSE_EMULATOR_PORT: String(emulatorPort),
      TALLYHOUSE_SQL_PORT: "0",
      TALLYHOUSE_INGEST_KEY: TOKEN,
      BOOKING_WINDOW_SECONDS: "5",
      REPORT_LATENESS_SECONDS: "0",
      REPORT_INTERVAL_MS: "300",
      VERIFY_SETTLE_SECONDS: "1",
      SEND_RATE_PER_SECOND: "2000",
      CALL_RATE_PER_SECOND: "2000",
      EMULATOR_LIMITS: "off",
    };
    const url = `http://127.0.0.1:${port}`;
    const { events } = generateDay({ seed: SEED, nowAt: Date.now(), events: 150_000 });
    const client = createClient({ url, events });
    try {
      let killsUnderLoad = 0;
      for (let kill = 1; kill <= KILLS; kill += 1) {
        const child = startChild(env);
        const acknowledgedBefore = client.acknowledged.size;
        const load = client.run(child.signal);
        const isUnderLoad = kill % 5 !== 0;
        if (isUnderLoad) {
          await until(() => client.acknowledged.size > acknowledgedBefore, { timeoutMs: 30_000, what: "a 202" });
        }
        // time passes here: the moment of the kill is the random choice under test, not a condition.
        await pause(random() * LIFE_MAX_MS);
        await child.kill();
        await load;
        if (client.acknowledged.size > acknowledgedBefore) killsUnderLoad += 1;
      }
      expect(killsUnderLoad, "no kill fell under load: the run shows nothing").toBeGreaterThanOrEqual(
        Math.floor((KILLS * 4) / 5),
      );

      const recovered = startChild(env);
      await waitUntilFolded(url);
      await recovered.kill();
      const stored = await storedIdentities(env);
      expect([...client.acknowledged].filter((id) => !stored.has(id))).toEqual([]);
      expect([...stored].filter((id) => !client.sent.has(id))).toEqual([]);

      const last = startChild(env);
      await waitUntilFolded(url);
      const resent = new AbortController();
      await client.resendUnanswered(resent.signal);
      await waitUntilFolded(url);
      await waitUntilReported(url);
      const truth = (await (await fetch(`http://127.0.0.1:${emulatorPort}/_emulator/truth`)).json()) as EmulatorTruth;
      await last.kill();

      const oracle = recount(events.filter((event) => client.sent.has(event.id)));
      expect(await storedTotals(env)).toEqual(oracle);
      expect(emulatorTotals(truth)).toEqual(oracle);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
);

interface Child {
  readonly signal: AbortSignal;
  kill(): Promise<void>;
}

/** Starts `tallyhouse start` as its users do; the signal aborts when the process is gone. */
function startChild(env: NodeJS.ProcessEnv): Child {
  const gone = new AbortController();
  const standalone: ChildProcess = spawn(
    process.execPath,
    [join(ROOT, "services/standalone/bin/tallyhouse.mjs"), "start"],
    {
      env,
      stdio: ["ignore", "ignore", "inherit"],
    },
  );
  const ended = new Promise<void>((resolve) => {
    standalone.once("exit", () => {
      gone.abort();
      resolve();
    });
  });
  return {
    signal: gone.signal,
    async kill() {
      standalone.kill("SIGKILL");
      await ended;
    },
  };
}

/** Sends batches of the prepared events, each identity until it is answered; remembers what was sent and what was answered 202. */
function createClient(input: { url: string; events: readonly DemoEvent[] }) {
  const sent = new Set<string>();
  const acknowledged = new Set<string>();
  const unanswered: DemoEvent[][] = [];
  let next = 0;
  const take = (): DemoEvent[] => {
    const batch = input.events.slice(next, next + EVENTS_PER_REQUEST);
    next += batch.length;
    return batch;
  };
  const post = async (batch: DemoEvent[], signal: AbortSignal): Promise<boolean> => {
    for (const event of batch) sent.add(event.id);
    const answer = await fetch(`${input.url}/v1/events`, {
      method: "POST",
      headers: { authorization: `Bearer ${TOKEN}`, "content-type": "application/cloudevents-batch+json" },
      body: JSON.stringify(batch.map(cloudEventOf)),
      signal,
    }).catch(() => null);
    if (answer?.status !== 202) return false;
    for (const event of batch) acknowledged.add(event.id);
    return true;
  };
  return {
    sent,
    acknowledged,
    async run(signal: AbortSignal) {
      const lane = async (): Promise<void> => {
        while (!signal.aborted && next < input.events.length) {
          if ((await fetch(`${input.url}/readyz`, { signal }).catch(() => null))?.ok !== true) {
            // time passes here: the client polls readiness, as a client outside would.
            await pause(25, signal);
            continue;
          }
          for (let batch = take(); batch.length > 0 && !signal.aborted; batch = take()) {
            if (await post(batch, signal)) continue;
            unanswered.push(batch);
            break;
          }
        }
      };
      await Promise.all(Array.from({ length: LANES }, lane));
    },
    async resendUnanswered(signal: AbortSignal) {
      for (const batch of unanswered) await until(() => post(batch, signal), { what: "a resend is answered 202" });
    },
  };
}

interface Status {
  readonly waiting: number;
  readonly due: number;
}

async function status(url: string): Promise<Status> {
  const answer = await fetch(`${url}/admin/v1/status`, { headers: { authorization: `Bearer ${TOKEN}` } });
  return (await answer.json()) as Status;
}

async function waitUntilFolded(url: string): Promise<void> {
  await until(async () => (await status(url)).waiting === 0, { timeoutMs: 60_000, what: "nothing waits in the log" });
}

/** Due work is empty and stays so over a whole booking window and report round: late marks would show in it. */
async function waitUntilReported(url: string): Promise<void> {
  let quietSince = performance.now();
  await until(
    async () => {
      if ((await status(url)).due > 0) quietSince = performance.now();
      return performance.now() - quietSince > 12_000;
    },
    { timeoutMs: 180_000, what: "nothing is due at Stripe" },
  );
}

async function storedIdentities(env: NodeJS.ProcessEnv): Promise<Set<string>> {
  const ports = await openStoppedFolder(env);
  try {
    const rows = await ports.analytics.select<{ id: string; copies: string }>(
      "SELECT id, toString(count()) AS copies FROM raw_events FINAL WHERE status = 'counted' GROUP BY id",
    );
    expect(rows.filter((row) => row.copies !== "1")).toEqual([]);
    return new Set(rows.map((row) => row.id));
  } finally {
    await ports.close();
  }
}

/** `customer,meter,hour,quantity` lines of the rollups, sorted by bytes. */
async function storedTotals(env: NodeJS.ProcessEnv): Promise<string[]> {
  const ports = await openStoppedFolder(env);
  try {
    const rows = await ports.analytics.select<{ line: string }>(
      `SELECT concat(customer, ',', meter, ',', formatDateTime(toStartOfHour(windowStart), '%Y-%m-%dT%H:00:00Z', 'UTC'), ',',
         toString(sum(sumQty))) AS line
       FROM usage GROUP BY customer, meter, toStartOfHour(windowStart)`,
    );
    return rows.map((row) => row.line).sort();
  } finally {
    await ports.close();
  }
}

function recount(sent: readonly DemoEvent[]): string[] {
  const lines = sent.map((event) => JSON.stringify(cloudEventOf(event))).join("\n");
  const text = execFileSync("python3", [join(ROOT, "tools/recount.py")], {
    input: lines,
    encoding: "utf8",
    maxBuffer: 64 << 20,
  });
  return text.trimEnd().split("\n").sort();
}

interface EmulatorTruth {
  readonly customers: readonly { readonly id: string; readonly metadata: Readonly<Record<string, string>> }[];
  readonly events: readonly {
    readonly event_name: string;
    readonly customer: string;
    readonly value: string;
    readonly timestamp: number;
    readonly fate: string;
  }[];
}

/** The same lines from every meter event the emulator counted. */
function emulatorTotals(truth: EmulatorTruth): string[] {
  const names = new Map(truth.customers.map(({ id, metadata }) => [id, metadata["tallyhouse_customer"] ?? id]));
  const totals = new Map<string, bigint>();
  for (const { event_name, customer, value, timestamp, fate } of truth.events) {
    if (fate !== "counted") continue;
    const meter = event_name.replace(/^th_/, "").replace(/_v\d+$/, "");
    const key = `${names.get(customer)},${meter},${formatInstant(floorTo(timestamp * 1_000, HOUR_MS))}`;
    totals.set(key, (totals.get(key) ?? 0n) + (parseQuantity(value) ?? 0n));
  }
  return [...totals].map(([key, total]) => `${key},${formatQuantity(total)}`).sort();
}

/** A port that was free a moment ago; the standalone keeps it over all restarts. */
function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      const port = typeof address === "object" && address !== null ? address.port : 0;
      server.close(() => resolve(port));
    });
  });
}
