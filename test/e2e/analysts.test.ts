/** Analysts as they work: usage sent over HTTP, questions in SQL, answers compared with a dull recount of what was sent. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HOUR_MS, MINUTE_MS } from "@tallyhouse/domain";
import { type Standalone, startStandalone } from "@tallyhouse/standalone";
import { until } from "@tallyhouse/testkit";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const DOCUMENT = readFileSync(new URL("../../docs/analytics.md", import.meta.url), "utf8");
const QUERIES = [...DOCUMENT.matchAll(/^```sql\n([\s\S]*?)^```$/gm)].map(([, sql = ""]) => sql);
const WORKED = [...DOCUMENT.matchAll(/^```text\n(SELECT [\s\S]*?)^```$/gm)].map(([, sql = ""]) => sql);
const TEST_TOKEN = "svc_test_th_0123456789abcdefghij";
const CUSTOMERS = ["acme", "beta", "gamma", "it's; a 'name'"] as const;
const MODELS = ["small", "large", ""] as const;

interface Sent {
  readonly id: string;
  readonly customer: string;
  readonly at: number;
  readonly data: { readonly inputTokens: number; readonly outputTokens: number; readonly model?: string };
}

const startedAt = Date.now();
/** Every usage event that must count, by arithmetic alone: no two runs of the index share a time. */
const counted: readonly Sent[] = Array.from({ length: 600 }, (_, n) => ({
  id: `a-${n}`,
  customer: CUSTOMERS[((n * n) % 7) % CUSTOMERS.length] ?? "acme",
  // Two thirds within the last 20 hours, the rest 2 to 30 days ago; all booked long after they occurred.
  at:
    startedAt -
    (n % 3 === 0
      ? 48 * HOUR_MS + ((n * 77_777_777) % (28 * 24 * HOUR_MS))
      : HOUR_MS + ((n * 7_777_777) % (19 * HOUR_MS))),
  data: {
    inputTokens: (n * 7_919) % 5_000,
    outputTokens: (n * 104_729) % 900,
    ...(MODELS[n % 3] === "" ? {} : { model: MODELS[n % 3] ?? "" }),
  },
}));
const duplicates = counted.filter((_, n) => n % 10 === 0);
const conflicts = counted
  .filter((_, n) => n % 50 === 0)
  .map((event) => ({ ...event, data: { ...event.data, inputTokens: 999_999 } }));
const tooLate = counted
  .filter((_, n) => n % 100 === 0)
  .map((event) => ({ ...event, id: `late-${event.id}`, at: startedAt - 40 * 24 * HOUR_MS }));
const invalid = [1, 2, 3].map((n) => ({
  id: `invalid-${n}`,
  customer: "acme",
  at: startedAt - HOUR_MS,
  data: { inputTokens: "many" },
}));

const folder = mkdtempSync(join(tmpdir(), "tallyhouse-analysts-"));
let running: Standalone;

beforeAll(async () => {
  running = await startStandalone({
    TALLYHOUSE_DATA: folder,
    TALLYHOUSE_PORT: "0",
    BOOKING_WINDOW_SECONDS: "5",
    LOG_LEVEL: "error",
  });
  await running.ports.tokens.add(TEST_TOKEN);
  for (const batch of [
    counted.slice(0, 300),
    counted.slice(300),
    [...duplicates, ...conflicts, ...tooLate, ...invalid],
  ]) {
    const events = batch.map(({ id, customer, at, data }) => ({
      id,
      customer,
      type: "llm.request",
      time: new Date(at).toISOString(),
      data,
    }));
    const answer = await fetch(`${running.url}/v1/events`, {
      method: "POST",
      headers: { authorization: `Bearer ${running.token}`, "content-type": "application/json" },
      body: JSON.stringify(events),
    });
    if (answer.status !== 202) throw new Error(`${answer.status}: ${await answer.text()}`);
  }
  const sent = counted.length + duplicates.length + conflicts.length + tooLate.length + invalid.length;
  const fates =
    "SELECT sum(counted + duplicates + conflicts + tooLate + invalid) AS n FROM fates_daily(timeZone = 'UTC')";
  const isOne = async (sql: string, count: number): Promise<boolean> => (await ask(sql))[0]?.["n"] === String(count);
  // Progress is written last: when it has all, every table has.
  const isStored = async (): Promise<boolean> =>
    (await isOne(fates, sent)) && (await isOne("SELECT sum(counted) AS n FROM freshness", counted.length));
  await until(isStored, { timeoutMs: 30_000 });
});
afterAll(async () => {
  await running.stop();
  rmSync(folder, { recursive: true, force: true });
});

type Row = Readonly<Record<string, unknown>>;

function send(
  sql: string,
  options: {
    params?: Readonly<Record<string, string>>;
    headers?: Readonly<Record<string, string>>;
    method?: string;
  } = {},
): Promise<Response> {
  const url = new URL(running.sqlUrl ?? "");
  for (const [name, value] of Object.entries(options.params ?? {})) url.searchParams.set(name, value);
  return fetch(url, {
    method: options.method ?? "POST",
    headers: options.headers ?? {
      authorization: `Basic ${Buffer.from(`analyst:${running.token}`).toString("base64")}`,
    },
    ...(options.method === "GET" ? {} : { body: sql }),
  });
}

/** Rows as objects; 64-bit numbers and decimals as text. */
async function ask(sql: string, params: Readonly<Record<string, string>> = {}): Promise<Row[]> {
  const answer = await send(`${sql.trimEnd()}\nFORMAT JSONEachRow`, { params });
  const text = await answer.text();
  if (answer.status !== 200) throw new Error(`${answer.status}: ${text}`);
  const quoted = text.replaceAll(/:(-?\d+(?:\.\d+)?)(?=[,}\]])/g, ':"$1"');
  return quoted
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Row);
}

const PARAMS = {
  param_zone: "Europe/Berlin",
  param_meter: "output_tokens",
  param_since: "2020-01-01 00:00:00",
  param_before: "2100-01-01 00:00:00",
  param_cut: "2000-01-01 00:00:00",
};

/** Sums of what was sent, by a key, in the order of the keys. */
function recount(
  events: readonly Sent[],
  keyOf: (event: Sent) => string,
  valueOf: (event: Sent) => number,
): [string, string][] {
  const sums = new Map<string, number>();
  for (const event of events) sums.set(keyOf(event), (sums.get(keyOf(event)) ?? 0) + valueOf(event));
  return [...sums].map(([key, sum]): [string, string] => [key, String(sum)]).toSorted(([a], [b]) => (a < b ? -1 : 1));
}

function pairs(rows: readonly Row[], key: (row: Row) => string, value: string): [string, string][] {
  return rows.map((row): [string, string] => [key(row), String(row[value])]).toSorted(([a], [b]) => (a < b ? -1 : 1));
}

/** The day in a zone as JavaScript's own calendar has it. */
function localDay(at: number, timeZone: string): string {
  return new Intl.DateTimeFormat("en-CA", { timeZone, dateStyle: "short" }).format(at);
}

describe("the twelve questions of docs/analytics.md", () => {
  test("there are twelve, and each is answered with rows", async () => {
    expect(QUERIES).toHaveLength(12);
    for (const sql of QUERIES.slice(0, 10)) expect(await ask(sql, PARAMS), sql).not.toHaveLength(0);
    // Of money: no period was billed here; services/reporter asks them where some were.
    for (const sql of QUERIES.slice(10)) expect(await ask(sql), sql).toEqual([]);
  });

  test("so are the two about corrections and different values", async () => {
    expect(WORKED).toHaveLength(2);
    for (const sql of WORKED) expect(await ask(sql), sql).toHaveLength(1);
  });

  test("the document lists each view with its columns", async () => {
    const rows = [...DOCUMENT.matchAll(/^\| `(\w+)(?:\((.*)\))?` +\| [^|]+ \| ([^|]+) \|$/gm)];
    expect(rows.length).toBe(17);
    for (const [, view = "", given, cell = ""] of rows) {
      const values: Readonly<Record<string, string>> = { timeZone: "'UTC'" };
      const list = given?.split(", ").map((name) => `${name} = ${values[name] ?? "'2026-01-01 00:00:00'"}`);
      const source = list === undefined ? view : `${view}(${list.join(", ")})`;
      const answer = await (await send(`SELECT * FROM ${source} LIMIT 0 FORMAT TSVWithNames`)).text();
      const columns = answer.trimEnd().split("\t");
      const told: readonly string[] = cell.match(/\w+/g) ?? [];
      expect(columns.length, answer).toBeGreaterThan(3);
      // A cell such as "as `usage`, and `dimensions`" leaves the rest to another.
      const isWhole = !/^(?:as|the columns of) /.test(cell);
      const untold = columns.filter((name) => isWhole && !told.includes(name));
      const absent = told.filter((word) => isWhole && /^[a-z]+[A-Z]/.test(word) && !columns.includes(word));
      expect({ view, untold, absent }).toEqual({ view, untold: [], absent: [] });
    }
  });

  test("G3 1: usage by window is what was sent", async () => {
    const mine = counted.filter(({ customer, at }) => customer === "acme" && at > startedAt - 24 * HOUR_MS);
    const windowOf = ({ at }: Sent): string =>
      new Date(at - (at % (15 * MINUTE_MS))).toISOString().slice(0, 19).replace("T", " ");
    const rows = await ask(QUERIES[0] ?? "");
    expect(pairs(rows, (row) => String(row["windowStart"]), "quantity")).toEqual(
      recount(mine, windowOf, ({ data }) => data.inputTokens),
    );
    expect(pairs(rows, (row) => String(row["windowStart"]), "events")).toEqual(recount(mine, windowOf, () => 1));
  });

  test("G3 2 and 3: local days and months are the calendar's", async () => {
    const mine = counted.filter(({ customer }) => customer === "acme");
    const days = (await ask(QUERIES[1] ?? "")).filter(({ meter }) => meter === "input_tokens");
    expect(pairs(days, (row) => String(row["localDay"]), "quantity")).toEqual(
      recount(
        mine,
        ({ at }) => localDay(at, "Asia/Kolkata"),
        ({ data }) => data.inputTokens,
      ),
    );
    const months = await ask(QUERIES[2] ?? "", PARAMS);
    expect(pairs(months, (row) => `${String(row["localMonth"])} ${String(row["customer"])}`, "quantity")).toEqual(
      recount(
        counted,
        ({ at, customer }) => `${localDay(at, "Europe/Berlin").slice(0, 7)}-01 ${customer}`,
        ({ data }) => data.outputTokens,
      ),
    );
  });

  test("G3 4, 5 and 9: by dimension, by rank and from the raw events the totals are the same", async () => {
    const models = await ask(QUERIES[3] ?? "");
    expect(pairs(models, (row) => String(row["model"]), "quantity")).toEqual(
      recount(
        counted,
        ({ data }) => data.model ?? "",
        ({ data }) => data.outputTokens,
      ),
    );
    const totals = recount(
      counted,
      ({ customer }) => customer,
      ({ data }) => data.inputTokens,
    );
    const top = await ask(QUERIES[4] ?? "", PARAMS);
    const byRank = totals.toSorted(([, a], [, b]) => Number(b) - Number(a));
    expect(top.map(({ place, customer, quantity }) => [place, customer, quantity])).toEqual(
      byRank.map(([customer, quantity], index) => [String(index + 1), customer, quantity]),
    );
    expect(pairs(await ask(QUERIES[8] ?? ""), (row) => String(row["customer"]), "quantity")).toEqual(totals);
  });

  test("G1 G2 6 and 7: nothing counts twice, and every fate is told", async () => {
    const fates = await ask(QUERIES[5] ?? "");
    const sum = (name: string): number => fates.reduce((total, row) => total + Number(row[name]), 0);
    expect([sum("counted"), sum("late"), sum("duplicates"), sum("conflicts")]).toEqual([
      counted.length,
      counted.length,
      duplicates.length,
      conflicts.length,
    ]);
    const refused = await ask(QUERIES[6] ?? "");
    expect(pairs(refused, (row) => `${String(row["status"])} ${String(row["customer"])}`, "records")).toEqual(
      [
        ...recount(
          tooLate,
          ({ customer }) => `too_late ${customer}`,
          () => 1,
        ),
        ["invalid acme", "3"],
      ].toSorted(([a = ""], [b = ""]) => (a < b ? -1 : 1)),
    );
  });
});

describe("the endpoint", () => {
  const codeOf = async (answer: Promise<Response>): Promise<readonly [number, string | null]> => {
    const { status, headers } = await answer;
    return [status, headers.get("x-clickhouse-exception-code")];
  };

  test("says that it is there, and takes a live token as password, key or bearer", async () => {
    expect(await (await fetch(`${running.sqlUrl}/ping`)).text()).toBe("Ok.\n");
    for (const headers of [
      { authorization: `Bearer ${running.token}` },
      { "x-clickhouse-user": "a", "x-clickhouse-key": running.token },
    ])
      expect(await (await send("SELECT 1", { headers })).text()).toBe("1\n");
    const byUrl = await send("", {
      method: "GET",
      params: { query: "SELECT 1 AS one", default_format: "JSONEachRow" },
    });
    expect([await byUrl.text(), byUrl.headers.get("x-clickhouse-format")]).toEqual(['{"one":1}\n', "JSONEachRow"]);
  });

  test("a live token reads both modes, so a test token reads nothing", async () => {
    const basic = (token: string) => ({ authorization: `Basic ${Buffer.from(`a:${token}`).toString("base64")}` });
    await fetch(`${running.url}/v1/events`, {
      method: "POST",
      headers: { authorization: `Bearer ${TEST_TOKEN}`, "content-type": "application/json" },
      body: JSON.stringify({ id: "t-1", customer: "sentinel-of-test", type: "llm.request", data: {} }),
    });
    const seen = "SELECT mode FROM counted_events WHERE customer = 'sentinel-of-test'";
    await until(async () => (await ask(seen))[0]?.["mode"] === "test");
    expect(await codeOf(send(seen, { headers: basic(TEST_TOKEN) }))).toEqual([403, "497"]);
    for (const headers of [{}, basic("svc_live_th_0123456789abcdefghij"), basic(""), { authorization: "Basic !" }])
      expect(await codeOf(send(seen, { headers }))).toEqual([401, "516"]);
    const inUrl = { user: "a", password: running.token };
    expect(await codeOf(send(seen, { headers: {}, params: inUrl }))).toEqual([401, "516"]);
    expect(await codeOf(send(seen, { params: inUrl }))).toEqual([401, "516"]);
  });

  test.each([
    ["another table", "SELECT * FROM progress", {}, [403, "497"]],
    ["a file", "SELECT file('/etc/passwd')", {}, [403, "497"]],
    ["a second statement", "SELECT 1; DROP TABLE rollup", {}, [403, "497"]],
    ["writing", "INSERT INTO rollup VALUES (1)", {}, [403, "497"]],
    ["a setting", "SELECT 1", { readonly: "0" }, [403, "164"]],
    ["a setting of formats", "SELECT 1", { format_schema: "/etc/passwd:x" }, [403, "164"]],
    ["another database", "SELECT 1", { database: "system" }, [403, "164"]],
    ["a statement in two places", "SELECT 1", { query: "SELECT" }, [400, "62"]],
    ["a format that it does not write", "SELECT 1", { default_format: "Arrow" }, [403, "497"]],
    ["no statement", "", {}, [400, "62"]],
    ["a mistake", "SELECT nothing FROM usage", {}, [400, "47"]],
    ["too much text", `SELECT '${"x".repeat(300_000)}'`, {}, [413, "307"]],
    ["an identifier as a value", "SELECT * FROM {t:Identifier}", { param_t: "progress" }, [403, "497"]],
  ])("refuses %s", async (...[, sql, params, expected]) => {
    expect(await codeOf(send(sql, { params }))).toEqual(expected);
  });

  test("other paths, methods and compressed bodies are refused", async () => {
    const { authorization } = { authorization: `Bearer ${running.token}` };
    expect(await codeOf(fetch(`${running.sqlUrl}/play`, { headers: { authorization } }))).toEqual([404, "84"]);
    expect(await codeOf(send("SELECT 1", { method: "PUT" }))).toEqual([405, "48"]);
    const gzip = { authorization, "content-encoding": "gzip" };
    expect(await codeOf(send("SELECT 1", { headers: gzip }))).toEqual([415, "48"]);
  });
});
