/** Corrections from the operator's request to Stripe: usage, ledger and emulator follow, whatever dies on the way. */
import { type ControlStore, HOUR_MS, MINUTE_MS } from "@tallyhouse/domain";
import { until } from "@tallyhouse/testkit";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Pipeline, running, startPipeline } from "../support/whole-pipeline.ts";

const WAIT = { timeoutMs: 60_000 };
const METERS = `schema: tallyhouse.meters/1
meters:
  - {key: tokens, eventType: llm.request, aggregation: sum, value: /inputTokens, from: 2000-01-01T00:00:00Z}
  - {key: calls, eventType: llm.request, aggregation: count, from: 2000-01-01T00:00:00Z}
`;
const WHY = { reason: "sent by a test of theirs", actor: "kim" };

type Console = Awaited<ReturnType<Pipeline["openConsole"]>>;
let pipeline: Pipeline;
let console: Console;
let parts: ReturnType<typeof running>[];

beforeAll(async () => {
  pipeline = await startPipeline({ horizonHours: 2, maxAgeHours: 1 });
  console = await pipeline.openConsole();
  parts = [running(console.outbox), running(console.sweeper)];
  const applied = await console.post("/admin/v1/meters/apply?wait=20s", { file: METERS });
  if (applied.body["state"] !== "active") throw new Error(`meters: ${JSON.stringify(applied)}`);
}, 60_000);
afterAll(async () => {
  const errors = [];
  for (const part of parts) errors.push(await part.stop());
  await console.close();
  errors.push(...(await pipeline.close()));
  const [error] = errors.filter((each) => each !== null);
  if (error !== undefined) throw new Error("a part did not live to the end", { cause: error });
});

/** One usage event of `tokens` tokens, a minute ago; stored when this resolves. */
async function given(customer: string, tokens: number | string, id = "evt-1"): Promise<void> {
  await pipeline.send([{ customer, id, occurredAt: pipeline.clock.now() - MINUTE_MS, data: { inputTokens: tokens } }]);
  await pipeline.untilStored();
}

function correct(verb: "void" | "replace", customer: string, more: object = {}) {
  return console.post(`/admin/v1/events/${verb}`, { customer, id: "evt-1", ...WHY, ...more });
}

/** `tokens/calls` of the last two days, as the usage API says. */
async function used(customer: string): Promise<string> {
  const range = `from=${instant(-50 * HOUR_MS)}&to=${instant(HOUR_MS)}`;
  const of = async (meter: string): Promise<string> => {
    const { data } = await console.get(`/v1/usage?customer=${customer}&meter=${meter}&window=total&${range}`);
    return (data as { quantity: string }[])[0]?.quantity ?? "none";
  };
  return `${await of("tokens")}/${await of("calls")}`;
}
const instant = (spanMs: number): string => {
  const at = pipeline.clock.now() + spanMs;
  return new Date(at - (at % 900_000)).toISOString();
};
const atStripe = async (customer: string): Promise<string> =>
  `${await pipeline.atStripe(customer, "tokens")}/${await pipeline.atStripe(customer, "calls")}`;
const untilUsed = (customer: string, figures: string) =>
  until(async () => (await used(customer)) === figures, { ...WAIT, what: `${customer} used ${figures}` });
const untilAtStripe = (customer: string, figures: string) =>
  until(async () => (await atStripe(customer)) === figures, {
    ...WAIT,
    what: `Stripe holds ${figures} of ${customer}`,
  });
const states = async (customer: string): Promise<string[]> => {
  const { corrections } = await console.get(`/admin/v1/corrections?customer=${customer}`);
  return (corrections as { kind: string; state: string }[]).map(({ kind, state }) => `${kind} ${state}`);
};
/** A flush stores the totals and what says that the correction took effect side by side: either may be seen first. */
const untilStates = (customer: string, wanted: readonly string[]) =>
  until(async () => (await states(customer)).join() === wanted.join(), { ...WAIT, what: wanted.join() });

test(
  "G5 a void and a replacement reach Stripe, before the usage event was reported and after",
  { timeout: 180_000 },
  async () => {
    for (const customer of ["voided-early", "voided-late", "witness"]) await given(customer, "10.5");
    for (const customer of ["replaced-early", "replaced-late"]) await given(customer, 10);
    expect((await correct("void", "voided-early")).status).toBe(202);
    const event = { type: "llm.request", data: { inputTokens: "7.000000001" } };
    expect((await correct("replace", "replaced-early", { event })).status).toBe(202);
    await untilUsed("voided-early", "0/0");
    await untilUsed("replaced-early", "7.000000001/1");
    pipeline.nextHour();
    for (const customer of ["voided-late", "witness"]) await untilAtStripe(customer, "10.5/1");
    await untilAtStripe("replaced-late", "10/1");
    await untilAtStripe("replaced-early", "7.000000001/1");
    expect(await atStripe("voided-early")).toBe("0/0");
    // Reported, and taken back by the next difference.
    expect((await correct("void", "voided-late")).status).toBe(202);
    const replaced = await correct("replace", "replaced-late", { event });
    await untilAtStripe("voided-late", "0/0");
    await untilAtStripe("replaced-late", "7.000000001/1");
    expect(await used("voided-late")).toBe("0/0");
    await until(async () => (await correct("void", "voided-late")).body["state"] === "applied", WAIT);
    // The replacement is a usage event as any other.
    const { id } = replaced.body["after"] as { id: string };
    expect((await correct("void", "replaced-late", { id })).status).toBe(202);
    await untilAtStripe("replaced-late", "0/0");
    expect(await used("replaced-late")).toBe("0/0");
    await untilStates("replaced-late", ["void applied", "replace applied"]);
    expect(await atStripe("witness")).toBe("10.5/1");
  },
);

test(
  "G1 G2 a console that dies between commit, append and mark loses no correction and makes none twice",
  { timeout: 180_000 },
  async () => {
    await given("killed", 10);
    await given("killed", 5, "evt-2");
    await parts[0]?.stop();
    // Dead after the commit: nothing of it is in the log.
    expect((await correct("void", "killed")).status).toBe(202);
    await pipeline.untilStored();
    expect(await states("killed")).toEqual(["void pending"]);
    expect(await used("killed")).toBe("15/2");
    // The next one appends, and dies before it can say so.
    const dying: ControlStore = {
      ...pipeline.control,
      query: (sql, params) =>
        sql.startsWith("UPDATE control_outbox")
          ? Promise.reject(new Error("killed"))
          : pipeline.control.query(sql, params),
    };
    const second = await pipeline.openConsole({ control: dying });
    expect(await running(second.outbox).ended).toMatchObject({ message: "killed" });
    await second.close();
    await untilUsed("killed", "5/1");
    await untilStates("killed", ["void applied"]);
    // The third appends it again.
    parts[0] = running(console.outbox);
    await until(async () => {
      const [row] = await pipeline.control.query<{ waiting: string }>(
        "SELECT count(*) AS waiting FROM control_outbox WHERE appended_at IS NULL",
      );
      return Number(row?.waiting) === 0;
    }, WAIT);
    await pipeline.untilStored();
    const [records] = await pipeline.analytics.select<{ raw: string; effects: string }>(
      `SELECT toString(count()) AS effects,
       (SELECT toString(count()) FROM raw_events FINAL WHERE reason = 'void' AND position(payload, 'killed') > 0) AS raw
     FROM control_records FINAL WHERE kind = 'void' AND position(body, 'killed') > 0`,
    );
    expect(records).toEqual({ raw: "2", effects: "1" });
    expect(await used("killed")).toBe("5/1");
    pipeline.nextHour();
    await untilAtStripe("killed", "5/1");
  },
);

test(
  "G2 the sweep takes back what came again, with another time, later than the horizon",
  { timeout: 180_000 },
  async () => {
    await given("swept", 10);
    await given("swept", 10);
    await untilUsed("swept", "10/1");
    for (let hours = 0; hours < 3; hours += 1) pipeline.nextHour();
    await given("swept", 10);
    await untilUsed("swept", "20/2");
    pipeline.nextHour();
    await untilAtStripe("swept", "20/2");
    const found = await console.get("/v1/usage/events/api/evt-1?customer=swept");
    expect((found["records"] as { status: string }[]).map(({ status }) => status)).toEqual([
      "counted",
      "conflict",
      "counted",
    ]);
    expect(
      (found["ledger"] as { meter: string; state: string }[]).map(({ meter, state }) => `${meter} ${state}`).sort(),
    ).toEqual(["calls accepted", "calls accepted", "tokens accepted", "tokens accepted"]);
    const { body } = await console.post("/admin/v1/sweeps", {});
    const finished = async (): Promise<object | undefined> => {
      const { sweeps } = await console.get("/admin/v1/sweeps");
      return (sweeps as { id: number; state: string }[]).find(
        ({ id, state }) => id === body["id"] && state === "finished",
      );
    };
    await until(async () => (await finished()) !== undefined, WAIT);
    expect(await finished()).toMatchObject({ repeated: 1, voided: 1, leftOver: 0 });
    await untilUsed("swept", "10/1");
    await untilAtStripe("swept", "10/1");
    await untilStates("swept", ["void applied"]);
    const { corrections } = await console.get("/admin/v1/corrections?customer=swept");
    expect(corrections).toMatchObject([{ kind: "void", actor: "sweep" }]);
  },
);
