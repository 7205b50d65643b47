import { decodeControl, formatInstant, partitionOfEvent, type UsageEvent } from "@tallyhouse/domain";
import { meterVersion } from "@tallyhouse/testkit";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { drain, fold } from "./test-fold.ts";
import {
  activate,
  CONTROL_KEY,
  type Counted,
  counted,
  openTestConsole,
  progress,
  rawRow,
  rawRowOf,
  store,
  STREAM,
  type TestConsole,
} from "./test-support.ts";

const NOON = Date.UTC(2026, 10, 20, 12);
let world: TestConsole;
let number = 0;

beforeAll(async () => {
  world = await openTestConsole(NOON);
  await activate(world.analytics, meterVersion({ meter: "tokens" }));
  await progress(world.analytics, { logClockAt: NOON, nextOffset: 2_000_000 });
});
beforeEach(async () => {
  await world.control.execute("DELETE FROM correction; DELETE FROM control_outbox;");
  world.log.records.length = 0;
});
afterAll(() => world.close());

/** A stored, counted usage event of an identity that no other test has, in the partition where it belongs. */
async function given(event: Partial<Pick<UsageEvent, "source" | "id">> = {}): Promise<Counted> {
  number += 1;
  const whole = { mode: "live", customer: "acme", source: "api", id: `evt-${number}`, ...event } as const;
  const partition = partitionOfEvent(whole, STREAM.partitionCount);
  const entry = counted({ offset: number, partition }, { occurredAt: NOON - 60_000, ...whole });
  await store(world.analytics, [entry], []);
  return entry;
}

const WHY = { reason: "a test of theirs", actor: "kim" };
const path = ({ event }: Pick<Counted, "event">, verb: string): string =>
  `/admin/v1/events/${encodeURIComponent(event.source)}/${encodeURIComponent(event.id)}/${verb}`;
const voided = (entry: Counted, body: object = {}, mode?: "live" | "test") =>
  world.post(path(entry, "void"), { customer: entry.event.customer, ...WHY, ...body }, mode);
const replaced = (entry: Counted, event: object, body: object = {}) =>
  world.post(path(entry, "replace"), { customer: entry.event.customer, ...WHY, event, ...body });
const problem = ({ status, body }: { status: number; body: Record<string, unknown> }): string =>
  `${status} ${String(body["code"])}`;
const USAGE = { type: "llm.request", data: { inputTokens: 7 } };
const states = async (): Promise<unknown[]> => {
  const { body } = await world.get("/admin/v1/corrections?customer=acme");
  return (body["corrections"] as { state: string }[]).map(({ state }) => state);
};
const factOf = (index: number) => {
  const record = world.log.records[index];
  if (record === undefined) throw new Error("no such record");
  const reading = decodeControl({ entry: record, partition: record.partition, keys: [CONTROL_KEY] });
  if (reading.kind !== "control") throw new Error(reading.rule);
  return { partition: record.partition, fact: reading.fact };
};

describe("void", () => {
  it("G2 is stored with its author, goes to the target's partition, and is done once however often it is asked", async () => {
    const entry = await given();
    const first = await voided(entry);
    expect(first).toMatchObject({
      status: 202,
      body: {
        kind: "void",
        state: "pending",
        mode: "live",
        event: { customer: "acme", source: "api", id: entry.event.id },
        record: { stream: 1, partition: entry.partition, offset: entry.offset },
        ...WHY,
        createdAt: "2026-11-20T12:00:00Z",
        before: { subject: "acme", time: "2026-11-20T11:59:00Z", data: { inputTokens: 10, outputTokens: 5 } },
        after: null,
      },
    });
    const again = await voided(entry, { reason: "once more", actor: "lee" });
    expect(again).toEqual({ status: 200, body: first.body });
    expect(await drain(world)).toBe(1);
    expect(factOf(0)).toMatchObject({ partition: entry.partition, fact: { kind: "void", offset: entry.offset } });
    expect(await states()).toEqual(["pending"]);
    await fold(world);
    expect(await states()).toEqual(["applied"]);
    expect((await voided(entry)).body).toEqual({ ...first.body, state: "applied" });
    expect(await drain(world)).toBe(0);
  });

  it("G4 keeps every digit of the usage event that it takes back", async () => {
    const entry = await given();
    const text = '{"inputTokens":12345678901234567890.000000001,"note":"\\u0000 1e400","big":1e400}';
    const row = { ...rawRowOf(entry), payload: text };
    await world.analytics.execute(
      `ALTER TABLE raw_events DELETE WHERE logOffset = ${entry.offset} SETTINGS mutations_sync = 2`,
    );
    await world.analytics.insert({ table: "raw_events", columns: Object.keys(row), rows: [Object.values(row)] });
    expect((await voided(entry)).status).toBe(202);
    await drain(world);
    const { fact } = factOf(0);
    expect(fact.kind === "void" && fact.event).toContain(`"data":${text}`);
    const { text: answer } = await world.get("/admin/v1/corrections?customer=acme");
    expect(answer).toContain("12345678901234567890.000000001");
  });

  it.each([
    "a/b",
    "ü/ö ☃ 💶",
    "%2F",
    "%252F?x=1#y",
    "..a..",
    "a\\b+c;d,e&f=g'\"",
    "~r1",
    "☃".repeat(256),
    "💶".repeat(128),
  ])("finds %j by its path", async (name) => {
    const entry = await given({ source: name, id: name.slice(0, 250) });
    expect(await voided(entry)).toMatchObject({ status: 202, body: { event: { source: name, id: entry.event.id } } });
  });

  it.each([".", "..", "../a", "/..", "a"])("finds %j by its body, as no path can carry every one", async (name) => {
    const entry = await given({ source: name, id: name });
    const identity = { customer: "acme", source: name, id: name };
    const answer = await world.post("/admin/v1/events/void", { ...identity, ...WHY });
    expect(answer).toMatchObject({ status: 202, body: { record: { offset: entry.offset } } });
    expect((await world.post("/admin/v1/events/replace", { ...identity, ...WHY, event: USAGE })).status).toBe(409);
    const both = await world.post(path(entry, "void").replaceAll(/\/\.+/g, "/x"), { ...identity, ...WHY });
    expect(problem(both)).toBe("400 CORRECTION_INVALID");
  });

  it("knows its own mode and customer only", async () => {
    const entry = await given();
    expect(problem(await voided(entry, {}, "test"))).toBe("404 EVENT_UNKNOWN");
    expect(problem(await voided(entry, { customer: "acme2" }))).toBe("404 EVENT_UNKNOWN");
    expect((await voided(entry)).status).toBe(202);
    const other = await world.get("/admin/v1/corrections", "test");
    expect(other.body["corrections"]).toEqual([]);
  });

  it("says what the log knows of an identity that never counted, and how fresh that is", async () => {
    const { event } = counted({ offset: 1 }, { occurredAt: NOON, customer: "acme", id: "never" });
    const unknown = await voided({ partition: 0, offset: 0, event });
    expect(problem(unknown)).toBe("404 EVENT_UNKNOWN");
    expect(unknown.body["detail"]).toContain("received none before 2026-11-20T12:00:00Z");
    const { mode, customer, source, id, type } = event;
    const row = { mode, customer, source, id, type, bookedAt: NOON, payload: "{}" };
    await rawRow(world.analytics, { partition: 3, offset: 77, ...row, status: "too_late", reason: "" });
    await rawRow(world.analytics, {
      partition: 3,
      offset: 78,
      ...row,
      status: "invalid",
      reason: "METER_VALUE_INVALID:m",
    });
    const late = await voided({ partition: 0, offset: 0, event });
    expect(problem(late)).toBe("404 EVENT_NOT_COUNTED");
    expect(late.body["detail"]).toMatch(/too_late, invalid \(METER_VALUE_INVALID:m\), last at 1\/3\/78/);
  });

  it("G3 refuses usage that a meter's backfill would have left out", async () => {
    const bookedDaysAgo = async (days: number) => {
      const entry = await given();
      const row = { ...rawRowOf(entry), bookedAt: NOON - days * 86_400_000 };
      await world.analytics.execute(
        `ALTER TABLE raw_events DELETE WHERE logOffset = ${entry.offset} SETTINGS mutations_sync = 2`,
      );
      await world.analytics.insert({ table: "raw_events", columns: Object.keys(row), rows: [Object.values(row)] });
      return voided(entry);
    };
    expect(problem(await bookedDaysAgo(389.1))).toBe("409 CORRECTION_CONFLICT");
    expect((await bookedDaysAgo(388.9)).status).toBe(202);
  });

  it("refuses what stands in an older stream, and what counted twice", async () => {
    const old = await given();
    await world.analytics.execute(
      `ALTER TABLE raw_events DELETE WHERE logOffset = ${old.offset} SETTINGS mutations_sync = 2`,
    );
    const row = { ...rawRowOf(old), stream: 0 };
    await world.analytics.insert({ table: "raw_events", columns: Object.keys(row), rows: [Object.values(row)] });
    const closed = await voided(old);
    expect([problem(closed), closed.body["detail"]]).toEqual([
      "409 CORRECTION_CONFLICT",
      expect.stringMatching(/stream 0, which is closed/),
    ]);
    const twice = await given();
    await store(world.analytics, [{ ...twice, offset: 500_000 + twice.offset }], []);
    const refused = await voided(twice);
    expect([problem(refused), refused.body["detail"]]).toEqual([
      "409 CORRECTION_CONFLICT",
      expect.stringMatching(/more than once.*tallyhouse events sweep/),
    ]);
    expect(await drain(world)).toBe(0);
  });

  it("names every wrong field of the body", async () => {
    const entry = await given();
    const wrong = await voided(entry, { reason: "", actor: "kim@example.com", more: 1 });
    expect(problem(wrong)).toBe("400 CORRECTION_INVALID");
    expect((wrong.body["problems"] as { field: string }[]).map(({ field }) => field).sort()).toEqual([
      "/actor",
      "/more",
      "/reason",
    ]);
    expect(problem(await voided(entry, { reason: "x".repeat(501) }))).toBe("400 CORRECTION_INVALID");
    expect(problem(await voided(entry, { reason: "two\nlines" }))).toBe("400 CORRECTION_INVALID");
    expect((await voided(entry, { reason: "x".repeat(500) })).status).toBe(202);
    expect(problem(await world.post(`${path(entry, "void")}?x=1`, "{"))).toBe("415 CONTENT_TYPE_UNSUPPORTED");
    const nul = await world.post("/admin/v1/events/api/a%00b/void", { customer: "acme", ...WHY });
    expect(problem(nul)).toBe("400 CORRECTION_INVALID");
  });
});

describe("replace", () => {
  it("G2 chooses an identity of the same partition, with the rest as it was", async () => {
    const entry = await given();
    const first = await replaced(entry, USAGE);
    expect(first.status).toBe(202);
    const after = first.body["after"] as { id: string; subject: string; source: string; time: string };
    expect(after).toMatchObject({
      subject: "acme",
      source: "api",
      time: "2026-11-20T11:59:00Z",
      data: { inputTokens: 7 },
    });
    expect(after.id).toMatch(new RegExp(`^${entry.event.id}~r[1-9][0-9]*$`));
    expect(partitionOfEvent({ ...entry.event, id: after.id }, STREAM.partitionCount)).toBe(entry.partition);
    expect((await replaced(entry, USAGE)).body).toEqual(first.body);
    expect((await replaced(entry, { ...USAGE, id: after.id })).status).toBe(200);
    await drain(world);
    await fold(world);
    expect(await states()).toEqual(["applied"]);
  });

  it("refuses another replacement, and a void behind it, and says what was done by whom", async () => {
    const entry = await given();
    const { body } = await replaced(entry, USAGE);
    for (const answer of [
      await voided(entry),
      await replaced(entry, { ...USAGE, data: { inputTokens: 8 } }),
      await replaced(entry, { ...USAGE, id: "another" }),
    ]) {
      expect(problem(answer)).toBe("409 CORRECTION_CONFLICT");
      expect(answer.body["detail"]).toContain(
        `was replaced by "${(body["after"] as { id: string }).id}" by kim at 2026-11-20T12:00:00Z`,
      );
    }
    const other = await given();
    await voided(other);
    const behind = await replaced(other, USAGE);
    expect([problem(behind), behind.body["detail"]]).toEqual([
      "409 CORRECTION_CONFLICT",
      expect.stringMatching(/was voided by kim/),
    ]);
  });

  it("G4 takes the digits of the replacement as they were sent, and compares them so", async () => {
    const entry = await given();
    const body = (digits: string): string =>
      `{"customer":"acme","reason":"r","actor":"kim","event":{"type":"llm.request","data":{"inputTokens":7,"exact":${digits}}}}`;
    const send = (digits: string) =>
      world.app.inject({
        method: "POST",
        url: path(entry, "replace"),
        headers: { authorization: "Bearer svc_live_th_0123456789abcdef", "content-type": "application/json" },
        payload: body(digits),
      });
    const first = await send("123456789.123456781");
    expect([first.statusCode, first.payload]).toEqual([202, expect.stringContaining("123456789.123456781")]);
    expect((await send("123456789.123456782")).statusCode).toBe(409);
    expect((await send("123456789.1234567810")).statusCode).toBe(200);
  });

  it("replaces and voids a replacement as any other usage event", async () => {
    const entry = await given();
    const { body } = await replaced(entry, USAGE);
    await drain(world);
    const [offset] = await fold(world);
    const next = {
      partition: entry.partition,
      offset: 0,
      event: { ...entry.event, id: (body["after"] as { id: string }).id },
    };
    const second = await replaced(next, { ...USAGE, data: { inputTokens: 9 } });
    expect(second).toMatchObject({ status: 202, body: { record: { offset }, before: { data: { inputTokens: 7 } } } });
    await drain(world);
    await fold(world);
    expect(await states()).toEqual(["applied", "applied"]);
    const last = { ...next, event: { ...next.event, id: (second.body["after"] as { id: string }).id } };
    expect((await voided(last)).status).toBe(202);
  });

  it("gives another id while one is taken, by the log or by a correction on its way", async () => {
    const entry = await given();
    const ids = Array.from({ length: 400 }, (_, index) => `${entry.event.id}~r${index + 1}`).filter(
      (id) => partitionOfEvent({ ...entry.event, id }, STREAM.partitionCount) === entry.partition,
    );
    await given({ id: ids[0] ?? "" });
    const other = await given({ id: `${entry.event.id}-x` });
    // Its replacement is asked to take the second fitting id, where that fits its own partition, too.
    const taken =
      other.partition === entry.partition && (await replaced(other, { ...USAGE, id: ids[1] })).status === 202;
    const { body } = await replaced(entry, USAGE);
    expect((body["after"] as { id: string }).id).toBe(ids[taken ? 2 : 1]);
  });

  it("keeps the id of a long usage event within its limit", async () => {
    const entry = await given({ id: `${"x".repeat(252)}💶yz` });
    const { body } = await replaced(entry, USAGE);
    const { id } = body["after"] as { id: string };
    expect([id.length <= 256, id.isWellFormed(), id.startsWith("x".repeat(250))]).toEqual([true, true, true]);
  });

  it("names what is wrong with the replacement by pointer", async () => {
    const entry = await given();
    const fields = async (event: object): Promise<string[]> => {
      const answer = await replaced(entry, event);
      expect(problem(answer)).toBe("400 CORRECTION_INVALID");
      return (answer.body["problems"] as { field: string; rule: string }[]).map(
        ({ field, rule }) => `${field} ${rule}`,
      );
    };
    expect(await fields({ data: {} })).toEqual([expect.stringMatching(/^\/event\/type is required/)]);
    expect(await fields({ ...USAGE, id: "" })).toEqual([expect.stringMatching(/^\/event\/id must not be empty/)]);
    expect(await fields({ ...USAGE, colour: "red" })).toEqual([
      expect.stringMatching(/^\/event\/colour .*FIELD_UNKNOWN/),
    ]);
    expect(await fields({ ...USAGE, specversion: "1.0" })).toEqual([expect.stringMatching(/^\/event\/specversion /)]);
    expect(await fields({ ...USAGE, data: { a: { constructor: 1 } } })).toEqual([
      expect.stringMatching(/^\/event\/data\/a\/constructor .*NAME_FORBIDDEN/),
    ]);
    expect(await fields({ ...USAGE, time: formatInstant(NOON + 301_000) })).toEqual([
      expect.stringMatching(/^\/event\/time is more than 5 minutes in the future/),
    ]);
    expect(await fields({ ...USAGE, time: "1969-12-31T23:59:59Z" })).toEqual([
      expect.stringMatching(/^\/event\/time /),
    ]);
    expect(await fields({ ...USAGE, data: { text: "x".repeat(65_536) } })).toEqual([
      expect.stringMatching(/^\/event is 65\d+ bytes as stored/),
    ]);
    expect(await fields({ ...USAGE, data: { inputTokens: "many" } })).toEqual([
      "/event/data/inputTokens cannot be read by meter tokens v1 (METER_VALUE_INVALID)",
    ]);
    expect(await fields({ ...USAGE, id: entry.event.id })).toEqual([
      "/event/id is the identity of a usage event in the log",
    ]);
    expect((await replaced(entry, { ...USAGE, time: formatInstant(NOON + 300_000) })).status).toBe(202);
  });

  it("suggests an id where the given one falls into another partition", async () => {
    const entry = await given();
    const misfit = ["m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "m9"].find(
      (id) => partitionOfEvent({ ...entry.event, id }, STREAM.partitionCount) !== entry.partition,
    );
    const answer = await replaced(entry, { ...USAGE, id: misfit });
    expect(problem(answer)).toBe("400 CORRECTION_INVALID");
    const [, suggestion] = /: "([^"]+)" does/.exec(String(answer.body["detail"])) ?? [];
    expect((await replaced(entry, { ...USAGE, id: suggestion })).status).toBe(202);
  });
});

describe("two at once, crashes and refusals", () => {
  it("G2 lets one of many win", async () => {
    const entry = await given();
    const answers = await Promise.all([
      ...Array.from({ length: 4 }, () => voided(entry)),
      ...Array.from({ length: 4 }, () => replaced(entry, USAGE)),
    ]);
    const made = answers.filter(({ status }) => status === 202);
    expect(made).toHaveLength(1);
    const kind = made[0]?.body["kind"];
    const expected = answers.map((answer, index) => {
      const isSame = (index < 4 ? "void" : "replace") === kind;
      return answer === made[0] ? 202 : isSame ? 200 : 409;
    });
    expect(answers.map(({ status }) => status)).toEqual(expected);
    expect(await drain(world)).toBe(1);
  });

  it("G1 stores correction and control record together or not at all", async () => {
    const entry = await given();
    // The transaction dies at its last statement: a kill before the commit.
    await world.control.execute("ALTER TABLE control_outbox ADD CONSTRAINT dead CHECK (kind <> 'void') NOT VALID");
    expect((await voided(entry)).status).toBe(500);
    await world.control.execute("ALTER TABLE control_outbox DROP CONSTRAINT dead");
    expect(await states()).toEqual([]);
    expect((await voided(entry)).status).toBe(202);
    expect(await drain(world)).toBe(1);
  });

  it("makes room for another correction when the log has refused one, and keeps the refused one in the audit", async () => {
    const entry = await given();
    const first = await replaced(entry, USAGE);
    await drain(world);
    await fold(world, { refuse: true });
    expect(await states()).toEqual(["refused"]);
    const second = await voided(entry, { actor: "lee" });
    expect(second).toMatchObject({ status: 202, body: { kind: "void", actor: "lee", state: "pending" } });
    await drain(world);
    await fold(world);
    expect(await states()).toEqual(["applied", "refused"]);
    expect(second.body["id"]).not.toBe(first.body["id"]);
    expect((await voided(entry)).body["id"]).toBe(second.body["id"]);
  });

  it("shows a correction as refused that its stream has ended before", async () => {
    const entry = await given();
    await voided(entry);
    await world.control.execute("UPDATE correction SET stream = 0");
    expect(await states()).toEqual(["refused"]);
  });

  it("shows a correction as refused when another one of the target came first in the log", async () => {
    const entry = await given();
    await voided(entry);
    await drain(world);
    // A control store that was set back, and made another one.
    const ahead = world.log.records.splice(0);
    await world.control.execute("DELETE FROM correction");
    await replaced(entry, USAGE);
    await drain(world);
    world.log.records.unshift(...ahead);
    await fold(world);
    expect(await states()).toEqual(["refused"]);
    const foreign = await voided(entry);
    expect([problem(foreign), foreign.body["detail"]]).toEqual([
      "409 CORRECTION_CONFLICT",
      expect.stringMatching(/this control store does not know/),
    ]);
  });
});

describe("the list", () => {
  it("goes back page by page, newest first", async () => {
    for (let each = 0; each < 3; each += 1) await voided(await given());
    const ids = ({ body }: { body: Record<string, unknown> }): number[] =>
      (body["corrections"] as { id: number }[]).map(({ id }) => id);
    const [first = 0, second = 0, third = 0] = ids(await world.get("/admin/v1/corrections?customer=acme"));
    expect([first > second, second > third]).toEqual([true, true]);
    expect(ids(await world.get(`/admin/v1/corrections?limit=1&before=${second}`))).toEqual([third]);
    expect(ids(await world.get("/admin/v1/corrections?customer=other"))).toEqual([]);
    expect(problem(await world.get("/admin/v1/corrections?limit=0&colour=red"))).toBe("400 QUERY_INVALID");
  });
});
