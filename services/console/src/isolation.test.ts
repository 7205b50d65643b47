/** No question as one customer and mode ever shows a word of another: sentinels in every field, greps over every answer. */
import { meterVersion } from "@tallyhouse/testkit";
import { USAGE_WINDOWS } from "@tallyhouse/usage";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { textCell } from "./csv.ts";
import { activate, counted, LIVE_TOKEN, openTestConsole, store, type TestConsole } from "./test-support.ts";

const NOON = Date.UTC(2026, 10, 20, 12);
const rule = { dimensions: { model: "/model" } };
const mine = meterVersion({ meter: "tokens", rule });
const theirs = meterVersion({ meter: "tokens", mode: "test", rule: { ...rule, unit: "SENTINELunit" } });

let world: TestConsole;

beforeAll(async () => {
  world = await openTestConsole(NOON);
  await activate(world.analytics, mine);
  await activate(world.analytics, theirs);
  const at = { occurredAt: NOON - 7_777 };
  await store(
    world.analytics,
    [
      counted({ offset: 1 }, { ...at, customer: "=cmd|' /C calc'!A0", data: { inputTokens: 5, model: '@x,"y"\n' } }),
      counted(
        { offset: 2 },
        { ...at, customer: "SENTINELcustomer", data: { inputTokens: 990_001, model: "SENTINELmodel" } },
      ),
      counted(
        { offset: 3 },
        { ...at, mode: "test", customer: "=cmd|' /C calc'!A0", data: { inputTokens: 990_002, model: "SENTINELmode" } },
      ),
    ],
    [mine, theirs],
  );
});
afterAll(() => world.close());

describe("isolation", () => {
  it("shows one customer of one mode alone, in every window and format", async () => {
    const customer = encodeURIComponent("=cmd|' /C calc'!A0");
    for (const window of USAGE_WINDOWS) {
      for (const accept of ["application/json", "text/csv"]) {
        // Odd edges for total: raw events answer, too.
        const from = window === "total" ? "2026-11-20T11:59:00.123Z" : "2026-11-20T00:00:00Z";
        const answer = await world.app.inject({
          url: `/v1/usage?customer=${customer}&meter=tokens&from=${from}&to=2026-11-21T00:00:00Z&window=${window}&groupBy=model`,
          headers: { authorization: `Bearer ${LIVE_TOKEN}`, accept },
        });
        expect(answer.statusCode).toBe(200);
        expect(answer.payload).toMatch(/5/);
        expect(answer.payload).not.toMatch(/SENTINEL|99000/);
      }
    }
  });

  it.each(["' OR 1=1 --", "\\' OR 1=1 --", "{mode:String}", "%", "", "SENTINELcustomer\u0000"])(
    "takes %j as a name and nothing else",
    async (name) => {
      const answer = await world.get(`/v1/usage?customer=${encodeURIComponent(name)}&meter=tokens`);
      expect([200, 400]).toContain(answer.status);
      expect(answer.text).not.toMatch(/99000/);
      const asMeter = await world.get(`/v1/usage?customer=SENTINEL&meter=${encodeURIComponent(name)}`);
      expect([400, 404]).toContain(asMeter.status);
    },
  );

  it("lists no customer of the other mode", async () => {
    const live = await world.get("/v1/usage/customers?meter=tokens");
    expect(live.text).not.toMatch(/990002/);
    const test = await world.get("/v1/usage/customers?meter=tokens", "test");
    expect(test.text).not.toMatch(/990001|SENTINELcustomer/);
  });
});

describe("CSV", () => {
  it("carries the whole answer on every line, exact, with formulas made text", async () => {
    const customer = encodeURIComponent("=cmd|' /C calc'!A0");
    const answer = await world.app.inject({
      url: `/v1/usage?customer=${customer}&meter=tokens&from=2026-11-20T00:00:00Z&to=2026-11-21T00:00:00Z&groupBy=model`,
      headers: { authorization: `Bearer ${LIVE_TOKEN}`, accept: "text/csv" },
    });
    expect(answer.headers["content-type"]).toBe("text/csv; charset=utf-8");
    expect(answer.payload).toBe(
      "customer,meter,version,unit,start,end,group.model,quantity,asOf\r\n" +
        `'=cmd|' /C calc'!A0,tokens,1,tokens,2026-11-20T00:00:00Z,2026-11-21T00:00:00Z,"'@x,""y""\n",5,\r\n`,
    );
  });

  it.each([
    ["plain", "plain"],
    ["=1", "'=1"],
    ["+1", "'+1"],
    ["-1", "'-1"],
    ["@a", "'@a"],
    ['a"b', '"a""b"'],
    ["a,b", '"a,b"'],
    ["ünï", "ünï"],
  ])("writes the text %j as %s", (text, cell) => {
    expect(textCell(text)).toBe(cell);
  });
});
