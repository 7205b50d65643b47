import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { type IncomingMessage, request as sendRequest } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { type ClickHouseClient, ClickHouseLogLevel, createClient } from "@clickhouse/client";
import { openClickHouse } from "@tallyhouse/clickhouse";
import { type LocalClickHouse, startClickHouse } from "@tallyhouse/infra/local/clickhouse.ts";
import { until } from "@tallyhouse/testkit";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

let folder: string;
let front: LocalClickHouse;
let client: ClickHouseClient;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tallyhouse-front-"));
  front = await startClickHouse({ folder, isFront: true, username: "tally", password: "p@ss:word" });
  client = createClient({ url: front.url, log: { level: ClickHouseLogLevel.OFF } });
});
afterAll(async () => {
  await client.close();
  await front.stop();
  await rm(folder, { recursive: true, force: true });
});

/** A plain request; credentials as `front` has them unless the headers name others. */
async function ask(
  fields: Readonly<Record<string, string>>,
  options: { body?: string | Uint8Array<ArrayBuffer>; headers?: Record<string, string>; method?: string } = {},
): Promise<{ status: number; headers: Headers; text: string }> {
  const { body, headers = {}, method = "POST" } = options;
  const { origin } = new URL(front.url);
  const answer = await fetch(`${origin}/?${new URLSearchParams(fields).toString()}`, {
    method,
    headers: { "X-ClickHouse-User": "tally", "X-ClickHouse-Key": "p@ss:word", ...headers },
    ...(body === undefined ? {} : { body }),
  });
  return { status: answer.status, headers: answer.headers, text: await answer.text() };
}

describe("the ClickHouse front", () => {
  it("G1 keeps every acknowledged insert through SIGKILLs, and an open store goes on by itself", async () => {
    const opened = await openClickHouse({ url: front.url });
    await opened.store.execute(
      `CREATE TABLE killed (writer UInt8, n UInt32, part UInt16, text String) ENGINE = MergeTree
      PARTITION BY part % 3 ORDER BY (writer, n, part) SETTINGS fsync_after_insert = 1, fsync_part_directory = 1`,
    );
    const rowsEach = 500;
    const acknowledged = [0, 0, 0];
    const failed: unknown[] = [];
    const over = new AbortController();
    const total = (): number => acknowledged.reduce((sum, n) => sum + n, 0);
    const writers = acknowledged.map(async (_, writer) => {
      while (!over.signal.aborted) {
        const n = acknowledged[writer] ?? 0;
        const rows = Array.from({ length: rowsEach }, (_row, part) => [writer, n, part, `row ${n}/${part}`]);
        try {
          await opened.store.insert({ table: "killed", columns: ["writer", "n", "part", "text"], rows });
          acknowledged[writer] = n + 1;
        } catch (error) {
          failed.push(error);
        }
      }
    });
    for (const kills of [5, 14, 31]) {
      const before = total();
      await until(() => total() >= before + kills, { timeoutMs: 30_000, what: `${kills} more acknowledged inserts` });
      const failures = failed.length;
      front.kill();
      await until(() => failed.length > failures, { timeoutMs: 30_000, what: "an insert that meets the kill" });
      await front.restart();
    }
    const before = total();
    await until(() => total() >= before + 3, { timeoutMs: 30_000, what: "inserts after the last kill" });
    over.abort();
    await Promise.all(writers);
    for (const error of failed) expect(error).toMatchObject({ code: "STORE_UNAVAILABLE", action: "retry" });
    for (const [writer, count] of acknowledged.entries()) {
      const [stored] = await opened.store.select<{ rows: string }>(
        "SELECT uniqExact(n, part) AS rows FROM killed WHERE writer = {writer:UInt8} AND n < {count:UInt32}",
        { writer, count },
      );
      expect(stored).toEqual({ rows: String(count * rowsEach) });
    }
    await opened.close();
  });

  it.each(["fail", "cut"])(
    "an answer that breaks in the middle (%s) is STORE_UNAVAILABLE, never a short answer",
    async (how) => {
      const opened = await openClickHouse({ url: front.url });
      const broken = opened.store.select(`SELECT number FROM numbers(100000) /* front:${how}-after=50000 */`);
      await expect(broken).rejects.toMatchObject({ code: "STORE_UNAVAILABLE", action: "retry" });
      expect(await opened.store.select("SELECT 1 AS one")).toEqual([{ one: 1 }]);
      await opened.close();
    },
  );

  it.each([0, 1] as const)(
    "an error after the first rows reaches the client, with its code where that is whole (compressed: %i)",
    async (compressed) => {
      const rows = await client.query({
        query: "SELECT throwIf(number = 900000, 'too far') AS broken, number FROM numbers(1000000)",
        format: "JSONEachRow",
        clickhouse_settings: { enable_http_compression: compressed, max_block_size: "10000" },
      });
      let read = 0;
      const reading = (async () => {
        for await (const some of rows.stream()) read += some.length;
      })();
      const error = await reading.then(
        () => "the whole answer",
        (cause: unknown) => (cause as { code?: string; message?: string }).code ?? (cause as Error).message,
      );
      // The client reads the code only where the error's text begins and ends in one piece of the body; else it says that it broke.
      expect(error).toMatch(/^(395|there was an error in the stream)/);
      expect(read).toBeGreaterThan(0);
    },
  );

  it("a setting or a parameter holds for its own statement only, also side by side", async () => {
    const valueOf = async (threads?: number): Promise<unknown> => {
      const result = await client.query({
        query: "SELECT getSetting('max_threads') AS threads, {name:String} AS name",
        format: "JSONEachRow",
        query_params: { name: `it's \\ ${threads}` },
        ...(threads === undefined ? {} : { clickhouse_settings: { max_threads: threads } }),
      });
      return result.json();
    };
    const [plain] = (await valueOf()) as { threads: number }[];
    const answers = await Promise.all(Array.from({ length: 50 }, (_, n) => valueOf(n + 100)));
    expect(answers).toEqual(Array.from({ length: 50 }, (_, n) => [{ threads: n + 100, name: `it's \\ ${n + 100}` }]));
    expect(await valueOf()).toEqual([{ threads: plain?.threads, name: "it's \\ undefined" }]);
  });

  it("takes rows in a format of their own, in the body, behind the statement, packed or in binary", async () => {
    await client.command({ query: "CREATE TABLE formats (a UInt32, b String) ENGINE = MergeTree ORDER BY a" });
    await client.insert({ table: "formats", values: [{ a: 1, b: "Ünï" }], format: "JSONEachRow" });
    const into = { query: "INSERT INTO formats (a, b) FORMAT TSV" };
    const packed = new Uint8Array(
      await new Response(new Response("2\tgzip\n").body?.pipeThrough(new CompressionStream("gzip"))).arrayBuffer(),
    );
    expect((await ask(into, { body: packed, headers: { "Content-Encoding": "gzip" } })).status).toBe(200);
    expect((await ask({}, { body: 'INSERT INTO formats FORMAT CSV\n3,"a\nb"\n' })).status).toBe(200);
    expect((await ask({}, { body: "INSERT INTO formats VALUES (4, 'values')" })).status).toBe(200);
    const native = await ask({ query: "SELECT toUInt32(5) AS a, 'x' AS b FORMAT RowBinary" });
    const binary = new TextEncoder().encode(native.text);
    expect((await ask({ query: "INSERT INTO formats FORMAT RowBinary" }, { body: binary })).status).toBe(200);
    const all = await client.query({ query: "SELECT b FROM formats ORDER BY a", format: "JSONCompactEachRow" });
    expect(await all.json()).toEqual([["Ünï"], ["gzip"], ["a\nb"], ["values"], ["x"]]);
    const summary = await ask(into, { body: "6\tsix\n7\tseven\n" });
    expect(JSON.parse(summary.headers.get("X-ClickHouse-Summary") ?? "")).toMatchObject({ written_rows: "2" });
  });

  it.each(["destroy", "end"] as const)(
    "G1 a block of rows whose connection breaks in the middle (%s) is not stored, and neither is one that ends early",
    async (how) => {
      const table = `broken_${how}`;
      await client.command({ query: `CREATE TABLE ${table} (n UInt32, text String) ENGINE = MergeTree ORDER BY n` });
      const rows = "SELECT toUInt32(number) AS n, repeat('x', 50) AS text FROM numbers(20000)";
      const { stream } = await client.exec({ query: `${rows} FORMAT Native` });
      const block = await buffer(stream);
      const query = `INSERT INTO ${table} (n, text) FORMAT Native`;
      const { origin } = new URL(front.url);
      const request = sendRequest(`${origin}/?${new URLSearchParams({ query }).toString()}`, {
        method: "POST",
        headers: { "X-ClickHouse-User": "tally", "X-ClickHouse-Key": "p@ss:word" },
      });
      const answered = once(request, "response").then(
        ([response]) => (response as IncomingMessage).statusCode ?? 0,
        () => 0,
      );
      const half = block.subarray(0, block.length / 2);
      await new Promise<void>((resolve) => request.write(half, () => resolve()));
      // Neither says that the body is whole: the last chunk is missing.
      if (how === "destroy") request.destroy();
      else request.socket?.end();
      expect(await answered).not.toBe(200);
      const early = await ask({ query }, { body: new Uint8Array(half) });
      expect({ status: early.status, text: early.text }).toMatchObject({
        status: 500,
        text: expect.stringContaining("CANNOT_READ_ALL_DATA") as string,
      });
      const count = { query: `SELECT count() FROM ${table} FORMAT TabSeparated` };
      expect((await ask(count)).text).toBe("0\n");
      expect((await ask({ query }, { body: new Uint8Array(block) })).status).toBe(200);
      expect((await ask(count)).text).toBe("20000\n");
    },
  );

  it("names query, format, time zone and database as a server does", async () => {
    const answer = await ask(
      { query: "SELECT currentDatabase() AS name", database: "system", query_id: "mine", default_format: "JSON" },
      { method: "GET" },
    );
    expect(JSON.parse(answer.text)).toMatchObject({ data: [{ name: "system" }], rows: 1 });
    const names = ["X-ClickHouse-Query-Id", "X-ClickHouse-Format", "Content-Type"];
    expect(names.map((name) => answer.headers.get(name))).toEqual(["mine", "JSON", "application/json; charset=UTF-8"]);
    expect(answer.headers.get("X-ClickHouse-Timezone")).toMatch(/./);
    const zoned = await ask({ query: "SELECT timezone()", session_timezone: "Asia/Kolkata" });
    expect([zoned.text, zoned.headers.get("X-ClickHouse-Timezone")]).toEqual(["Asia/Kolkata\n", "Asia/Kolkata"]);
  });

  it.each([
    { body: "SELECT nonsense", status: 404, code: 47, name: "UNKNOWN_IDENTIFIER" },
    { body: "SELEC 1", status: 400, code: 62, name: "SYNTAX_ERROR" },
    { body: "SELECT 1; SELECT 2", status: 400, code: 62, name: "SYNTAX_ERROR" },
    { body: "SELECT * FROM missing", status: 404, code: 60, name: "UNKNOWN_TABLE" },
    { body: "INSERT INTO missing FORMAT TSV\n1\n", status: 404, code: 60, name: "UNKNOWN_TABLE" },
    { body: "SELECT throwIf(1)", status: 500, code: 395, name: "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO" },
    { body: "SET max_threads = 1", status: 501, code: 48, name: "NOT_IMPLEMENTED" },
    { body: "CREATE TEMPORARY TABLE t (n UInt8)", status: 501, code: 48, name: "NOT_IMPLEMENTED" },
  ])("refuses $body as a server does", async ({ body, status, code, name }) => {
    const answer = await ask({}, { body });
    expect([answer.status, answer.headers.get("X-ClickHouse-Exception-Code")]).toEqual([status, String(code)]);
    expect(answer.text).toMatch(
      new RegExp(`^Code: ${code}\\. DB::Exception: [^]*\\(${name}\\) \\(version [\\d.]+\\)\\n$`),
    );
  });

  it("lets statements wait, refuses one too many, and survives what is no request", async () => {
    const sleepers = Array.from({ length: 8 }, () => ask({}, { body: "SELECT sleepEachRow(1) FROM numbers(3)" }));
    const answers = await Promise.all(Array.from({ length: 1_100 }, () => ask({}, { body: "SELECT 1" })));
    const refused = answers.filter(({ status }) => status !== 200);
    expect(refused.length).toBeGreaterThan(0);
    for (const { status, text } of refused) {
      expect(status).toBe(500);
      expect(text).toContain("TOO_MANY_SIMULTANEOUS_QUERIES");
    }
    await Promise.all(sleepers);
    const odd = await ask({ query_id: "line\nbreak", query: "SELECT 1" });
    expect(odd.status).toBe(500);
    expect((await ask({}, { body: "SELECT 1" })).text).toBe("1\n");
  });

  it("ends in order: a statement that runs is answered first", async () => {
    const other = await startClickHouse({ folder: join(folder, "other"), isFront: true });
    const { origin } = new URL(other.url);
    const slow = fetch(origin, { method: "POST", body: "SELECT sleepEachRow(1), 'slow' FROM numbers(3)" });
    const processes = `${origin}/?query=${encodeURIComponent("SELECT count() FROM system.processes WHERE query LIKE '%slow%'")}`;
    await until(async () => Number(await (await fetch(processes)).text()) > 1, {
      timeoutMs: 10_000,
      what: "it to run",
    });
    await other.stop();
    expect(await (await slow).text()).toContain("slow");
  });

  it("changes nothing by GET, and answers nobody without the password", async () => {
    const made = await ask({ query: "CREATE TABLE by_get (n UInt8) ENGINE = Memory" }, { method: "GET" });
    expect([made.status, made.headers.get("X-ClickHouse-Exception-Code")]).toEqual([500, "164"]);
    const stranger = await ask({ query: "SELECT 1" }, { headers: { "X-ClickHouse-Key": "wrong" } });
    expect([stranger.status, stranger.headers.get("X-ClickHouse-Exception-Code")]).toEqual([403, "516"]);
    const basic = `Basic ${Buffer.from("tally:p@ss:word").toString("base64")}`;
    const known = await ask({ query: "SELECT 1" }, { headers: { "X-ClickHouse-Key": "", Authorization: basic } });
    expect([known.status, known.text]).toEqual([200, "1\n"]);
    const inUrl = await fetch(`${new URL(front.url).origin}/?user=tally&password=p%40ss%3Aword&query=SELECT%202`);
    expect(await inUrl.text()).toBe("2\n");
  });
});
