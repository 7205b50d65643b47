/** A token of mode `test` makes a Tallyhouse whose every figure is test data; a folder can start without meters. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startStandalone } from "@tallyhouse/standalone";
import { applyMeters } from "@tallyhouse/standalone/demo";
import { until } from "@tallyhouse/testkit";
import { expect, test } from "vitest";

const BIN = new URL("../../services/standalone/bin/tallyhouse.mjs", import.meta.url).pathname;
const TOKEN = "svc_test_th_onlyfortests0123456789";
const METERS =
  "schema: tallyhouse.meters/1\nmeters:\n  - { key: calls, eventType: api.call, aggregation: count, from: 2000-01-01T00:00:00Z }\n";

test("G5 usage under a test token is counted as test and reported to the test side only; migrate leaves the folder as it is", async () => {
  const folder = mkdtempSync(join(tmpdir(), "tallyhouse-modes-"));
  const env = {
    TALLYHOUSE_DATA: folder,
    TALLYHOUSE_PORT: "0",
    TALLYHOUSE_INGEST_KEY: TOKEN,
    TALLYHOUSE_METERS: "none",
    BOOKING_WINDOW_SECONDS: "5",
    REPORT_LATENESS_SECONDS: "0",
    REPORT_INTERVAL_MS: "300",
    LOG_LEVEL: "error",
  };
  const running = await startStandalone(env);
  expect({ mode: running.mode, token: running.token }).toEqual({ mode: "test", token: TOKEN });
  const headers = { authorization: `Bearer ${TOKEN}`, "content-type": "application/json" };
  const listed = (await (await fetch(`${running.url}/admin/v1/meters`, { headers })).json()) as { meters: unknown[] };
  expect(listed.meters).toEqual([]);
  await applyMeters(running, METERS);
  const event = {
    id: "t-1",
    customer: "cust-t",
    type: "api.call",
    time: new Date(Date.now() - 7_200_000).toISOString(),
  };
  const answer = await fetch(`${running.url}/v1/events`, { method: "POST", headers, body: JSON.stringify(event) });
  expect(answer.status).toBe(202);
  const truth = await until(
    async () => {
      const { events } = await running.emulator.truth();
      return events.length > 0 && events;
    },
    { timeoutMs: 30_000, what: "a meter event at the emulator" },
  );
  expect(truth.map(({ mode, event_name, value, fate }) => ({ mode, event_name, value, fate }))).toEqual([
    { mode: "test", event_name: "th_calls_v1", value: "1", fate: "counted" },
  ]);
  const stored = await running.ports.analytics.select("SELECT DISTINCT toString(mode) AS mode FROM rollup");
  expect(stored).toEqual([{ mode: "test" }]);
  expect(await running.stop()).toBe(0);

  const said = execFileSync(process.execPath, [BIN, "migrate"], { env: { ...process.env, ...env }, encoding: "utf8" });
  expect(said).toContain("up to date");
  rmSync(folder, { recursive: true, force: true });
});
