import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startPostgres } from "@tallyhouse/infra/local/postgres.ts";
import { openPostgres } from "@tallyhouse/postgres";
import { retry, systemClock } from "@tallyhouse/runtime";
import { startStandalone } from "@tallyhouse/standalone";
import { until } from "@tallyhouse/testkit";
import { expect, it } from "vitest";
import { postgresUrl } from "./postgres-support.ts";

postgresUrl();

const WRITERS = 5;
const KILLS = 3;
/** Between two kills: another number each time would be luck, this many keeps every writer in the middle of something. */
const COMMITS_BETWEEN_KILLS = 300;
const BUDGET = { firstDelayMs: 20, delayMaxMs: 500, totalMs: 60_000 };

it("G1 every acknowledged commit outlives the server's SIGKILL, whole, and the store goes on by itself", async () => {
  const folder = await mkdtemp(join(tmpdir(), "tallyhouse-postgres-"));
  await chmod(folder, 0o711);
  const server = await startPostgres({ folder: join(folder, "server") });
  try {
    const opened = await openPostgres({ url: server.url });
    const { store } = opened;
    await store.execute("CREATE TABLE kept (n int, half int, PRIMARY KEY (n, half))");
    const acknowledged: number[] = [];
    let outages = 0;
    let next = 0;
    const over = new AbortController();
    const write = async (n: number): Promise<void> =>
      store.transaction(async (tx) => {
        // A commit whose answer was lost is repeated, and must change nothing then.
        await tx.query("INSERT INTO kept VALUES ($1, 1) ON CONFLICT DO NOTHING", [n]);
        await tx.query("INSERT INTO kept VALUES ($1, 2) ON CONFLICT DO NOTHING", [n]);
      });
    const writeUntilOver = async (): Promise<void> => {
      while (!over.signal.aborted) {
        const n = next;
        next += 1;
        // Only STORE_UNAVAILABLE with `retry` is repeated: any other error of the outage fails the test.
        await retry(() => write(n), BUDGET, {
          clock: systemClock,
          random: Math.random,
          onRetry: () => (outages += 1),
        });
        acknowledged.push(n);
      }
    };
    const writers = Promise.all(Array.from({ length: WRITERS }, writeUntilOver));
    const more = async (): Promise<void> => {
      const wanted = acknowledged.length + COMMITS_BETWEEN_KILLS;
      await Promise.race([
        until(() => acknowledged.length >= wanted, { timeoutMs: 60_000, what: `${wanted} commits` }),
        writers,
      ]);
    };
    const outagesOfKill: number[] = [];
    for (let kill = 0; kill < KILLS; kill += 1) {
      await more();
      const before = outages;
      server.kill();
      await until(() => outages > before, { timeoutMs: 30_000, what: "a writer that met the kill" });
      await server.restart();
      outagesOfKill.push(outages - before);
    }
    await more();
    over.abort();
    await writers;

    expect(outagesOfKill.every((count) => count > 0)).toBe(true);
    const rows = await store.query<{ n: number; halves: string }>("SELECT n, count(*) AS halves FROM kept GROUP BY n");
    const kept = new Set(rows.map(({ n }) => n));
    expect(acknowledged.length).toBeGreaterThanOrEqual((KILLS + 1) * COMMITS_BETWEEN_KILLS);
    expect(acknowledged.filter((n) => !kept.has(n))).toEqual([]);
    expect(rows.filter(({ halves }) => halves !== "2")).toEqual([]);
    await opened.close();
  } finally {
    await server.stop();
    await rm(folder, { recursive: true, force: true });
  }
}, 180_000);

it("G1 G9 standalone says that the control store is away, and counts everything accepted once it is back", async () => {
  const folder = await mkdtemp(join(tmpdir(), "tallyhouse-postgres-"));
  await chmod(folder, 0o711);
  const server = await startPostgres({ folder: join(folder, "server") });
  const env = { TALLYHOUSE_DATA: join(folder, "data"), TALLYHOUSE_PORT: "0", LOG_LEVEL: "silent" };
  const running = await startStandalone({ ...env, POSTGRES_URL: server.url, REPORT_INTERVAL_MS: "300" });
  try {
    const headers = { authorization: `Bearer ${running.token}`, "content-type": "application/json" };
    const readiness = async (): Promise<number> => (await fetch(`${running.url}/readyz`)).status;
    let accepted = 0;
    const post = async (): Promise<number> => {
      const data = { inputTokens: 1, outputTokens: 1, model: "small" };
      const body = JSON.stringify({ id: `event-${accepted}`, customer: "acme", type: "llm.request", data });
      const { status } = await fetch(`${running.url}/v1/events`, { method: "POST", headers, body });
      if (status === 202) accepted += 1;
      return status;
    };
    const total = async (): Promise<string | undefined> => {
      const answer = await fetch(`${running.url}/v1/usage?customer=acme&meter=input_tokens&window=total`, { headers });
      const { data } = (await answer.json()) as { data?: { quantity: string }[] };
      return data?.[0]?.quantity;
    };
    const limit = { timeoutMs: 30_000 };
    expect(await post()).toBe(202);
    await until(async () => (await readiness()) === 200, { ...limit, what: "a ready process" });
    server.kill();
    // A known token is remembered for a moment; then nobody can be recognised, and nothing is accepted.
    await until(async () => (await post()) === 503, { ...limit, what: "a refused event" });
    await until(async () => (await readiness()) === 503, { ...limit, what: "an unready process" });
    await server.restart();
    await until(async () => (await post()) === 202, { ...limit, what: "an accepted event" });
    await until(async () => (await readiness()) === 200, { ...limit, what: "a ready process again" });
    await until(async () => (await total()) === String(accepted), { ...limit, what: "every accepted event counted" });
  } finally {
    await running.stop();
    await server.stop();
    await rm(folder, { recursive: true, force: true });
  }
}, 180_000);
