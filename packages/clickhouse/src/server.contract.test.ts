import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline/promises";
import { fileURLToPath } from "node:url";
import { describeAnalyticsStore } from "@tallyhouse/testkit";
import { afterAll, expect, test } from "vitest";
import { openClickHouse } from "./open.ts";

const FIXTURE = fileURLToPath(new URL("./http-front.fixture.ts", import.meta.url));
let front: ChildProcess | undefined;

/** Starts the engine behind HTTP in a process of its own; the URL it listens on. */
async function startFront(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "tallyhouse-front-"));
  const child = spawn(process.execPath, [FIXTURE, folder], { stdio: ["ignore", "pipe", "inherit"] });
  front = child;
  const lines = createInterface({ input: child.stdout });
  const [port] = (await once(lines, "line")) as [string];
  return `http://127.0.0.1:${port}`;
}

const url = startFront();
afterAll(async () => {
  front?.kill("SIGTERM");
  if (front !== undefined) await once(front, "close");
});

describeAnalyticsStore("a server over HTTP (the engine of chDB behind it)", async () =>
  openClickHouse({ url: await url }),
);

test("a server that is away is STORE_UNAVAILABLE, and the sentence names the host but no password", async () => {
  const free = createServer().listen(0, "127.0.0.1");
  await once(free, "listening");
  const address = free.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  free.close();
  await once(free, "close");
  await expect(openClickHouse({ url: `http://127.0.0.1:${port}`, password: "secret" })).rejects.toMatchObject({
    code: "STORE_UNAVAILABLE",
    action: "retry",
    message: `the analytics store could not be reached at 127.0.0.1:${port} (ECONNREFUSED)`,
  });
});
