/**
 * kill -9 of the standalone at random moments under load, start-up included. KILLS (default 20) and SEED choose the run; a
 * failure prints both. The oracle is tools/recount.py over what was sent, in another language and without our code.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "@tallyhouse/infra/local/free-port.ts";
import { pause } from "@tallyhouse/runtime";
import { auditPorts, openStoppedFolder } from "@tallyhouse/standalone";
import { generateDay, seededRandom } from "@tallyhouse/standalone/demo";
import { until } from "@tallyhouse/testkit";
import { expect, test } from "vitest";
import { createLoadClient } from "../support/load-client.ts";
import { untilFolded, untilReported } from "../support/pipeline-status.ts";
import { countedIds, emulatorTotals, readTruth, recount, storedTotals } from "../support/recount.ts";

const SEED = Number(process.env["SEED"] ?? 1);
const KILLS = Number(process.env["KILLS"] ?? 20);
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
    const client = createLoadClient({ urls: [url], token: TOKEN, events, lanes: LANES });
    const target = { url, token: TOKEN };
    try {
      let killsUnderLoad = 0;
      for (let kill = 1; kill <= KILLS; kill += 1) {
        const child = startChild(env);
        const acknowledgedBefore = client.acknowledged.size;
        const load = client.run(child.signal);
        const isUnderLoad = kill % 5 !== 0;
        if (isUnderLoad) {
          await until(() => client.acknowledged.size > acknowledgedBefore, { timeoutMs: 120_000, what: "a 202" });
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
      await untilFolded(target);
      await recovered.kill();
      const { ids, repeated } = await withStopped(env, ({ analytics }) => countedIds(analytics));
      expect(repeated).toEqual([]);
      expect([...client.acknowledged].filter((id) => !ids.has(id))).toEqual([]);
      expect([...ids].filter((id) => !client.sent.has(id))).toEqual([]);

      const last = startChild(env);
      await untilFolded(target);
      await client.resendUnanswered();
      await untilFolded(target);
      await untilReported(target);
      const truth = await readTruth(`http://127.0.0.1:${emulatorPort}`);
      await last.kill();

      const oracle = recount(events.filter((event) => client.sent.has(event.id)));
      expect(await withStopped(env, ({ analytics }) => storedTotals(analytics))).toEqual(oracle);
      expect(emulatorTotals(truth)).toEqual(oracle);
      const { checks } = await withStopped(env, (ports) => auditPorts(ports, env));
      expect(checks.flatMap(({ examples }) => examples)).toEqual([]);
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

async function withStopped<Result>(
  env: NodeJS.ProcessEnv,
  read: (ports: Awaited<ReturnType<typeof openStoppedFolder>>) => Promise<Result>,
): Promise<Result> {
  const ports = await openStoppedFolder(env);
  try {
    return await read(ports);
  } finally {
    await ports.close();
  }
}
