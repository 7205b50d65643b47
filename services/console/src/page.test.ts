import { DAY_MS } from "@tallyhouse/domain";
import { meterVersion } from "@tallyhouse/testkit";
import { createHash } from "node:crypto";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { activate, counted, memoryLog, openTestConsole, progress, store, type TestConsole } from "./test-support.ts";

const NOON = Date.UTC(2026, 10, 20, 12);
const HOSTILE = `<script>alert("1")</script>&'`;
const tokens = meterVersion({ rule: { dimensions: { model: "/model" }, unit: "<b>tokens</b>" } });

let world: TestConsole;

beforeAll(async () => {
  world = await openTestConsole(NOON);
  await activate(world.analytics, tokens);
  await world.control.query(
    `INSERT INTO meter_version (mode, key, version, digest, rule, unit, active_from, created_at, created_by)
     VALUES ('live', 'input_tokens', 1, 'd', $1::json, $2, now(), now(), 'test')`,
    [JSON.stringify(tokens.rule), tokens.rule.unit],
  );
  const events = Array.from({ length: 60 }, (_, index) =>
    counted(
      { offset: index + 1 },
      {
        occurredAt: NOON - (index % 30) * DAY_MS,
        customer: index % 2 === 0 ? HOSTILE : `cus_${index}`,
        data: { inputTokens: 1_000_000 + index },
      },
    ),
  );
  await store(world.analytics, events, [tokens]);
  const log = memoryLog();
  await log.append(events.map(({ partition }) => ({ partition, key: null, value: null, headers: {} })));
  world.log.records.push(...log.records);
  await progress(world.analytics, { logClockAt: NOON - 4_000, nextOffset: 10, counted: 15 });
});
afterAll(() => world.close());

const page = (query = "") => world.app.inject({ url: `/${query}` });

describe("the page", () => {
  it("escapes what customers named, everywhere", async () => {
    const customer = `?customer=${encodeURIComponent(HOSTILE)}`;
    for (const query of ["", customer, "?mode=%3Cscript%3E&meter=%3Cscript%3E&refresh=%3Cscript%3E"]) {
      const { payload } = await page(query);
      expect(payload).not.toContain("<script");
      expect(payload).not.toContain("<b>");
      expect(payload).toContain("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;&#39;");
    }
  });

  it("allows nothing but itself, and fits in 20 kB", async () => {
    const answer = await page();
    expect(answer.headers["content-security-policy"]).toMatch(
      /^default-src 'none'; style-src 'sha256-[\w+/=]+'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'$/,
    );
    // The browser takes the style only if the policy names the digest of what stands between the tags.
    const style = /<style>([\s\S]*?)<\/style>/.exec(answer.payload)?.[1] ?? "";
    const digest = createHash("sha256").update(style).digest("base64");
    expect(answer.headers["content-security-policy"]).toContain(`'sha256-${digest}'`);
    expect(answer.headers["x-content-type-options"]).toBe("nosniff");
    expect(answer.payload).not.toMatch(/ style=| on\w+=|<link|<img|src=/);
    expect(gzipSync(answer.payload).length).toBeLessThan(20_000);
  });

  it("G7: says how fresh its figures are, in a word and not in colour alone", async () => {
    const words = async (ageMs: number): Promise<string> => {
      world.clock.at = NOON - 4_000 + ageMs;
      return (await page()).payload;
    };
    expect(await words(4_000)).toContain("● fresh");
    expect(await words(60_000)).toContain("● fresh");
    expect(await words(60_001)).toContain("▲ late");
    expect(await words(300_001)).toContain("■ stale");
    world.clock.at = NOON;
  });

  it("shows the pipeline and the exact daily figures of all customers or one", async () => {
    const { payload } = await page();
    expect(payload).toMatch(/<dt>Counted<\/dt><dd>60<\/dd>/);
    expect(payload).toMatch(/<dt>Waiting<\/dt><dd>20<\/dd>/);
    // 60 usage events of 1,000,000 and the sum of 0 to 59.
    expect(payload).toContain("60,001,770");
    // Today: usage events 0 and 30.
    expect(payload).toMatch(/<td>2026-11-20<\/td><td class="n">2,000,030<\/td>/);
    const one = await page("?customer=cus_1");
    expect(one.payload).toMatch(/<td>2026-11-19<\/td><td class="n">1,000,001<\/td>/);
    expect(one.payload).toMatch(/<td>2026-11-20<\/td><td class="n">–<\/td>/);
  });

  it("has a table beside its chart, and a bar for each of the 30 days", async () => {
    const { payload } = await page();
    expect(payload.match(/<rect class="(day|today)"/g)?.length).toBe(30);
    expect(payload).toContain("<details><summary>Daily figures</summary><table>");
    expect(payload).toMatch(/<svg role="img" aria-label="[^"]+"/);
  });

  it("loads again by itself until it is paused", async () => {
    expect((await page()).payload).toContain('<meta http-equiv="refresh" content="5" />');
    const paused = (await page("?refresh=off")).payload;
    expect(paused).not.toContain("http-equiv");
    expect(paused).toContain("Resume updates");
  });

  it("has something to say before there is anything to show", async () => {
    const { statusCode, payload } = await page("?mode=test");
    expect(statusCode).toBe(200);
    expect(payload).toContain("No active meter in mode test");
    expect(payload).not.toContain("alert");
  });
});

describe("GET /admin/v1/status", () => {
  it("counts every stage", async () => {
    const { body } = await world.get("/admin/v1/status");
    expect(body).toEqual({
      counted: 60,
      waiting: 20,
      due: 0,
      atStripe: 0,
      stuck: 0,
      outbox: 0,
      statuses: { counted: 60 },
      asOf: "2026-11-20T11:59:56Z",
      lagSeconds: 4,
    });
    expect((await world.app.inject({ url: "/admin/v1/status" })).statusCode).toBe(401);
  });
});

describe("what is not there", () => {
  it("is a problem document", async () => {
    const answer = await world.app.inject({ url: "/nowhere" });
    expect([answer.statusCode, answer.headers["content-type"]]).toEqual([
      404,
      "application/problem+json; charset=utf-8",
    ]);
    expect(answer.json()).toMatchObject({ code: "NOT_FOUND", status: 404 });
  });
});
