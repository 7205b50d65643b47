/** `tallyhouse events …` and its routes through the gateway, against a running standalone. */
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Standalone, startStandalone } from "@tallyhouse/standalone";
import { until } from "@tallyhouse/testkit";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const BIN = new URL("../../services/standalone/bin/tallyhouse.mjs", import.meta.url).pathname;
const folder = mkdtempSync(join(tmpdir(), "tallyhouse-events-"));
let running: Standalone;

beforeAll(async () => {
  running = await startStandalone({
    BOOKING_WINDOW_SECONDS: "5",
    LOG_LEVEL: "silent",
    TALLYHOUSE_DATA: folder,
    TALLYHOUSE_PORT: "0",
    TALLYHOUSE_SQL_PORT: "off",
  });
});
afterAll(async () => {
  await running.stop();
  rmSync(folder, { recursive: true, force: true });
});

/** Runs the command line in a process of its own; `input` is its standard input. */
function tallyhouse(args: readonly string[], input = ""): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    const env = { ...process.env, TALLYHOUSE_URL: running.url, TALLYHOUSE_DATA: folder };
    const child = execFile(process.execPath, [BIN, "events", ...args], { env }, (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr }),
    );
    child.stdin?.end(input);
  });
}

function call(path: string, body?: object): Promise<Response> {
  return fetch(`${running.url}${path}`, {
    method: body === undefined ? "GET" : "POST",
    headers: { authorization: `Bearer ${running.token}`, "content-type": "application/json" },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
}

/** Sends one usage event and waits until it can be found. */
async function given(event: { id: string; customer: string; source?: string; data?: object }): Promise<void> {
  const whole = { type: "llm.request", data: { inputTokens: 10, outputTokens: 1, model: "small" }, ...event };
  const { status } = await call("/v1/events", whole);
  if (status !== 202) throw new Error(`not accepted: ${status}`);
  const query = new URLSearchParams({ customer: event.customer, source: event.source ?? "api", id: event.id });
  await until(async () => (await call(`/v1/usage/events?${query.toString()}`)).status === 200, { timeoutMs: 30_000 });
}
describe("tallyhouse events", () => {
  test("replaces by what stands on standard input, digit by digit", async () => {
    await given({ id: "evt-2", customer: "acme" });
    const event = '{"type":"llm.request","data":{"inputTokens":7,"exact":12345678901234567890.000000001}}';
    const args = ["replace", "api", "evt-2", "--customer", "acme", "--reason", "r", "--actor", "kim", "--event", "-"];
    const replaced = await tallyhouse(args, event);
    expect([replaced.code, replaced.stderr, replaced.stdout]).toEqual([
      0,
      "",
      expect.stringMatching(/ replace .*acme api evt-2 → evt-2~r\d+ {2}by kim: r\n$/),
    ]);
    const list = await (await call("/admin/v1/corrections?customer=acme")).text();
    expect(list).toContain("12345678901234567890.000000001");
    const wrong = await tallyhouse(["replace"]);
    expect([wrong.code, wrong.stderr]).toEqual([
      2,
      expect.stringMatching(/^events needs SOURCE and ID[^]*tallyhouse events find/),
    ]);
  });

  test.each(["a/b", "%2F", "ü ☃ 💶", "..", ".", "a/../b", "-dash", "'\"\\;?#&=+", "☃".repeat(256), "💶".repeat(128)])(
    "finds and voids source and id %j",
    async (name) => {
      await given({ id: name, source: name, customer: name });
      const text = encodeURIComponent(name);
      const isPath = !/(^|\/)\.\.?($|\/)/.test(name);
      const byPath = await call(`/v1/usage/events/${text}/${text}?customer=${text}`);
      expect(byPath.status).toBe(isPath ? 200 : 404);
      const body = { customer: name, reason: "r", actor: "kim" };
      const voided = isPath
        ? await call(`/admin/v1/events/${text}/${text}/void`, body)
        : await call("/admin/v1/events/void", { ...body, source: name, id: name });
      expect([voided.status, (await voided.json()) as object]).toMatchObject([
        202,
        { event: { source: name, id: name } },
      ]);
    },
  );
});
