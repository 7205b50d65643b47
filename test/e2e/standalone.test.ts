/** Tallyhouse as a newcomer meets it: one process, one folder, HTTP and the command line. */
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { HOUR_MS } from "@tallyhouse/domain";
import { type Standalone, startStandalone } from "@tallyhouse/standalone";
import { until } from "@tallyhouse/testkit";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const BIN = new URL("../../services/standalone/bin/tallyhouse.mjs", import.meta.url).pathname;
const FAST = {
  BOOKING_WINDOW_SECONDS: "5",
  REPORT_LATENESS_SECONDS: "0",
  REPORT_INTERVAL_MS: "300",
  LOG_LEVEL: "error",
};

interface Run {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the command line in its own process, as `npx tallyhouse` does. */
async function tallyhouse(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Run> {
  try {
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [BIN, ...args], {
      env: { ...process.env, ...env },
    });
    return { code: 0, stdout, stderr };
  } catch (error) {
    const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string };
    return { code, stdout, stderr };
  }
}

describe("a first start on an empty folder", () => {
  const folder = mkdtempSync(join(tmpdir(), "tallyhouse-e2e-"));
  const env = { ...FAST, TALLYHOUSE_DATA: folder, TALLYHOUSE_PORT: "0" };
  let running: Standalone;

  beforeAll(async () => {
    running = await startStandalone(env);
  });
  afterAll(async () => {
    await running.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  const call = (path: string, init: RequestInit = {}): Promise<Response> =>
    fetch(`${running.url}${path}`, {
      ...init,
      headers: { authorization: `Bearer ${running.token}`, "content-type": "application/json" },
    });
  const post = (event: object): Promise<Response> =>
    call("/v1/events", { method: "POST", body: JSON.stringify(event) });
  const total = async (customer: string, meter: string): Promise<string | undefined> => {
    const from = new Date(Date.now() - 24 * HOUR_MS).toISOString();
    const to = new Date(Date.now() + HOUR_MS).toISOString();
    const answer = await call(`/v1/usage?customer=${customer}&meter=${meter}&window=total&from=${from}&to=${to}`);
    const body = (await answer.json()) as { data: { quantity: string }[] };
    return body.data[0]?.quantity;
  };

  test("the operator's token is kept with mode 600 and the stores hold only its hash", async () => {
    expect(running.isFirstStart).toBe(true);
    expect(running.token).toMatch(/^svc_live_th_[0-9A-Za-z]{49}$/);
    expect(readFileSync(join(folder, "operator-key"), "utf8").trim()).toBe(running.token);
    expect(statSync(join(folder, "operator-key")).mode & 0o777).toBe(0o600);
    const rows = await running.ports.control.query<{ row: string }>(
      "SELECT service_token::text AS row FROM service_token",
    );
    expect(rows).toHaveLength(1);
    expect(rows[0]?.row).not.toContain(running.token.slice(12));
  });

  test("G1 G7 an event is visible in the usage API and on the page, sent twice it counts once", async () => {
    const event = {
      id: "first-1",
      customer: "cust-1",
      type: "llm.request",
      data: { inputTokens: 374, outputTokens: 44, model: "small" },
    };
    expect((await post(event)).status).toBe(202);
    expect((await post(event)).status).toBe(202);
    await until(async () => (await total("cust-1", "input_tokens")) === "374");
    expect(await total("cust-1", "llm_requests")).toBe("1");
    const page = await fetch(`${running.url}/`);
    expect(page.status).toBe(200);
    expect(await page.text()).toContain("cust-1");
  });

  test("G5 an event of two hours ago reaches the billing provider", async () => {
    const time = new Date(Date.now() - 2 * HOUR_MS).toISOString();
    expect(
      (
        await post({
          id: "earlier-1",
          customer: "cust-2",
          type: "llm.request",
          time,
          data: { inputTokens: 1_000, outputTokens: 7 },
        })
      ).status,
    ).toBe(202);
    const truth = async () =>
      (await (await fetch(`${running.emulator.url}/_emulator/truth`)).json()) as {
        events: { value: string; event_name: string; fate: string }[];
      };
    await until(
      async () =>
        (await truth()).events.some(
          (sent) => sent.event_name === "th_input_tokens_v1" && sent.value === "1000" && sent.fate === "counted",
        ),
      { timeoutMs: 30_000 },
    );
  });

  test("a bad event names its field and leaves its neighbours alone", async () => {
    const good = { id: "neighbour-1", customer: "cust-3", type: "llm.request", data: { inputTokens: 5 } };
    const answer = await post([good, { ...good, id: "" }]);
    expect(answer.status).toBe(202);
    const { results } = (await answer.json()) as { results: object[] };
    expect(results[0]).toMatchObject({ status: "accepted" });
    expect(results[1]).toMatchObject({ status: "rejected", code: "FIELD_INVALID", pointer: "/id" });
  });

  test("a request without the token is refused", async () => {
    const answer = await fetch(`${running.url}/v1/events`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: "{}",
    });
    expect(answer.status).toBe(401);
    expect(answer.headers.get("content-type")).toContain("application/problem+json");
  });

  test("meters check, diff and apply work from the command line", async () => {
    const file = join(folder, "meters.yaml");
    const meter = (from: string) =>
      `schema: tallyhouse.meters/1\nmeters:\n  - key: images\n    eventType: image.made\n    aggregation: sum\n    value: /pixels\n    from: ${from}\n`;
    const client = { TALLYHOUSE_URL: running.url, TALLYHOUSE_DATA: folder };
    writeFileSync(file, meter("yesterday"));
    const bad = await tallyhouse(["meters", "check", file]);
    expect(bad.code).toBe(1);
    expect(bad.stderr).toContain(`${file}:7: meters[0].from: must be an RFC 3339 instant`);
    writeFileSync(file, meter("2000-01-01T00:00:00Z"));
    expect(await tallyhouse(["meters", "diff", file], client)).toMatchObject({
      code: 0,
      stdout: expect.stringContaining("new          images v1"),
    });
    expect(await tallyhouse(["meters", "apply", file], client)).toMatchObject({ code: 0 });
    expect(await tallyhouse(["meters", "diff", file], client)).toMatchObject({
      stdout: expect.stringContaining("none"),
    });
    expect(
      (await post({ id: "image-1", customer: "cust-4", type: "image.made", data: { pixels: "0.000000001" } })).status,
    ).toBe(202);
    await until(async () => (await total("cust-4", "images")) === "0.000000001");
  });

  test("plans diff and apply work from the command line, over the meters of the first start", async () => {
    const client = { TALLYHOUSE_URL: running.url, TALLYHOUSE_DATA: folder };
    const file = fileURLToPath(new URL("../../examples/plans.yaml", import.meta.url));
    const applied = await tallyhouse(["plans", "apply", file, "--reason", "first prices", "--actor", "kim"], client);
    expect(applied).toMatchObject({ code: 0, stderr: "" });
    expect(applied.stdout).toContain("new          plan team v1\n");
    const diff = await tallyhouse(["plans", "diff", file], client);
    expect(diff.code).toBe(0);
    expect(diff.stdout).toContain("none         plan team v1\n");
  });

  test("a second process on the folder is refused with a clear sentence", async () => {
    const second = await tallyhouse(["start"], { ...env });
    expect(second.code).toBe(1);
    expect(second.stderr).toMatch(/tallyhouse: .*in use/);
    expect(second.stderr).toContain(folder);
  });

  test("a port taken is an error that names it", async () => {
    const port = new URL(running.url).port;
    const other = mkdtempSync(join(tmpdir(), "tallyhouse-e2e-port-"));
    const refused = await tallyhouse(["start"], {
      ...FAST,
      TALLYHOUSE_DATA: other,
      TALLYHOUSE_PORT: port,
      TALLYHOUSE_EMULATOR_PORT: "0",
    });
    rmSync(other, { recursive: true, force: true });
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain(`port ${port} on 127.0.0.1 is taken`);
    expect(refused.stderr).toContain("TALLYHOUSE_PORT");
  });

  test("G1 a restart goes on where it was; a changed stream setting is refused", async () => {
    const before = await total("cust-1", "input_tokens");
    expect(await running.stop()).toBe(0);
    await expect(startStandalone({ ...env, BOOKING_WINDOW_SECONDS: "15" })).rejects.toThrow(/bookingWindowSeconds/);
    running = await startStandalone(env);
    expect(running.isFirstStart).toBe(false);
    expect(await total("cust-1", "input_tokens")).toBe(before);
    expect(
      (await post({ id: "after-1", customer: "cust-1", type: "llm.request", data: { inputTokens: 1 } })).status,
    ).toBe(202);
    await until(async () => (await total("cust-1", "input_tokens")) === "375");
  });
});
