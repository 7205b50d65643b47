/** The commands in this process, against a standalone of their own. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { until } from "@tallyhouse/testkit";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Standalone, startStandalone } from "./app.ts";
import { runEvents } from "./events-command.ts";

const folder = mkdtempSync(join(tmpdir(), "tallyhouse-events-"));
const WHY = ["--reason", "sent by a test of theirs", "--actor", "kim"];
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

/** What the command writes. */
async function events(...args: string[]): Promise<string> {
  let text = "";
  const env = { TALLYHOUSE_URL: running.url, TALLYHOUSE_DATA: folder };
  const code = await runEvents(args, { env, write: (more) => (text += more) });
  expect(code).toBe(0);
  return text;
}

/** What the command is refused with: the name of the error and its sentence. */
async function refused(...args: string[]): Promise<string> {
  const error = await events(...args).catch((reason: unknown) => reason);
  return error instanceof Error ? `${error.name}: ${error.message}` : "was not refused";
}

/** Sends one usage event and waits until it can be found. */
async function given(event: { id: string; data?: object }): Promise<void> {
  const whole = { customer: "acme", type: "llm.request", data: { inputTokens: 10, model: "small" }, ...event };
  const headers = { authorization: `Bearer ${running.token}`, "content-type": "application/json" };
  const answer = await fetch(`${running.url}/v1/events`, { method: "POST", headers, body: JSON.stringify(whole) });
  if (answer.status !== 202) throw new Error(await answer.text());
  const path = `${running.url}/v1/usage/events?customer=acme&id=${event.id}`;
  await until(async () => (await fetch(path, { headers })).status === 200, { timeoutMs: 30_000 });
}

describe("tallyhouse events", () => {
  test("find, void, replace and corrections, as an operator types them", async () => {
    await given({ id: "evt-1", data: { inputTokens: 374, outputTokens: 44, model: "small" } });
    await given({ id: "evt-2" });
    expect(await events("find", "api", "evt-1", "--customer", "acme", "--mode", "live")).toMatch(
      /^counted: counted\n {2}accepted \S+, occurred \S+, booked \S+\n {2}in the log at stream 1, partition \d+, offset \d+; type llm.request\n {2}\{"inputTokens":374,[^\n]*\n[^]*counts in input_tokens v1, window \S+: 374 model="small"[^]*Everything the log received before/,
    );
    const voided = await events("void", "api", "evt-1", "--customer", "acme", ...WHY);
    expect(voided).toMatch(
      /^\d+ {2}\S+ {2}void {5}(?:pending |applied ) {2}acme api evt-1 {2}by kim: sent by a test of theirs\n$/,
    );
    const [id = ""] = voided.split(" ");
    expect((await events("void", "api", "evt-1", "--customer", "acme", ...WHY)).split(" ")[0]).toBe(id);
    const file = join(folder, "event.json");
    writeFileSync(file, '{"type":"llm.request","data":{"inputTokens":7}}');
    const replaced = await events("replace", "api", "evt-2", "--customer", "acme", ...WHY, "--event", file);
    expect(replaced).toMatch(/ replace .*acme api evt-2 → evt-2~r\d+ /);
    await until(
      async () => {
        const text = await events("corrections", "--customer", "acme");
        return /replace {2}applied [^\n]*\n[^\n]*void {5}applied [^\n]*\n$/.test(text);
      },
      { timeoutMs: 30_000 },
    );
    expect(await events("corrections", "--customer", "nobody")).toBe("nothing was corrected\n");
    expect(JSON.parse(await events("corrections", "--json"))).toMatchObject({ mode: "live", corrections: [{}, {}] });
    const [, next = ""] = /→ (\S+)/.exec(replaced) ?? [];
    expect(await events("find", "api", next, "--customer", "acme")).toContain("in the place of another usage event");
    expect(await events("find", "api", "evt-1", "--customer", "acme")).toMatch(
      /^counted: counted, and taken back by a correction since\n[^]*correction \d+ .*void {5}applied/,
    );
    expect(await events("sweep")).toMatch(
      /^sweep \d+: 0 identities counted more than once, 0 usage events taken back, 0 left\n$/,
    );
  });

  test("says what is wrong in a sentence", async () => {
    await given({ id: "wrong-1" });
    const wrong = ["api", "wrong-1", "--customer", "acme"];
    expect(await refused()).toBe("UsageError: events needs find, void, replace, corrections or sweep");
    expect(await refused("void", "wrong-1", "--customer", "acme")).toMatch(/^UsageError: events needs SOURCE and ID/);
    expect(await refused("void", "api", "wrong-1")).toBe("UsageError: --customer is required");
    expect(await refused("void", ...wrong)).toBe("UsageError: --reason is required");
    expect(await refused("replace", ...wrong, ...WHY)).toBe("UsageError: --event is required");
    expect(await refused("void", ...wrong, ...WHY, "--event", "x")).toBe("UsageError: --event belongs to replace");
    const file = join(folder, "wrong.json");
    expect(await refused("replace", ...wrong, ...WHY, "--event", file)).toMatch(/^UsageError: cannot read .*ENOENT/);
    writeFileSync(file, "[1]");
    expect(await refused("replace", ...wrong, ...WHY, "--event", file)).toMatch(/holds no JSON object$/);
    writeFileSync(file, "{");
    expect(await refused("replace", ...wrong, ...WHY, "--event", file)).toMatch(/wrong.json is no JSON: /);
    expect(await refused("find", ...wrong, "--colour")).toMatch(/Unknown option '--colour'/);
    expect(await refused("find", ...wrong, "--mode", "test")).toMatch(
      /^ApiError: the token is one of mode live, not test/,
    );
    expect(await refused("void", "api", "nothing", "--customer", "acme", ...WHY)).toMatch(
      /^ApiError: EVENT_UNKNOWN: no usage event of customer "acme" with source "api" and id "nothing" in mode live: the log received none before/,
    );
    expect(await refused("void", ...wrong, "--reason", "r", "--actor", "k@x")).toMatch(
      /CORRECTION_INVALID[^]*\n {2}\/actor: is the name of an operator/,
    );
  });
});
