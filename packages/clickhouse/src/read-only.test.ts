import { access, mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { PARAMETRISED_VIEWS, VIEWS } from "./analyst-names.ts";
import { migrateClickHouse } from "./migrate.ts";
import { openClickHouse, type OpenedClickHouse } from "./open.ts";
import { openReadOnlySql, type ReadOnlyAnswer, type ReadOnlySql } from "./read-only.ts";

const MIGRATIONS = fileURLToPath(new URL("../../../infra/clickhouse", import.meta.url));
/** Stands in a file, in a table of no view, in another database and in a payload's neighbour: no answer may hold it. */
const SENTINEL = "sentinel-7f3a";

let folder: string;
let opened: OpenedClickHouse;
let readOnly: ReadOnlySql;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tallyhouse-read-only-"));
  opened = await openClickHouse({ path: join(folder, "clickhouse") });
  await migrateClickHouse(opened.store, MIGRATIONS);
  for (const statement of [
    "CREATE DATABASE other",
    `CREATE TABLE other.secrets ENGINE = MergeTree ORDER BY tuple() AS SELECT '${SENTINEL}' AS secret`,
    `CREATE TABLE secrets ENGINE = MergeTree ORDER BY tuple() AS SELECT '${SENTINEL}' AS secret`,
    `INSERT INTO progress SELECT 1, number, 10, '2026-11-01 00:00:00', 9, 8, '${SENTINEL}', now() FROM numbers(4)`,
    `INSERT INTO rollup SELECT 'live', 'acme', 'tokens', 1, toDateTime('2026-11-01 00:00:00') + 900 * number, ['m'], 1, 0, 0,
       '2026-11-01 00:00:00', 1, 1, 0, 2, 2, 2, 2, '2026-11-01 00:00:00', number FROM numbers(1500)`,
  ])
    await opened.store.execute(statement);
  await writeFile(join(folder, "secret.txt"), `${SENTINEL}\n`);
  readOnly = await openReadOnlySql({ path: join(folder, "clickhouse") });
});
afterAll(async () => {
  await readOnly.close();
  await opened.close();
});

async function run(sql: string, params: Record<string, string> = {}): Promise<ReadOnlyAnswer> {
  return readOnly.run({ sql, params: new Map(Object.entries(params)), defaultFormat: "TabSeparated" });
}

async function textOf(sql: string, params: Record<string, string> = {}): Promise<string> {
  const answer = await run(sql, params);
  return answer.kind === "rows" ? Buffer.from(answer.body).toString("utf8") : JSON.stringify(answer);
}

/** `FILE` becomes the path of a file that is there, `OUT` of one that must never be. */
const ATTEMPTS: Readonly<Record<string, readonly string[]>> = {
  "a file": [
    "SELECT * FROM file('FILE', 'LineAsString')",
    "SELECT file('FILE')",
    "SELECT `file`('FILE')",
    "SELECT FILE('FILE')",
    "WITH file('FILE') AS secret SELECT secret FROM usage",
    "SELECT (SELECT * FROM file('FILE', 'LineAsString'))",
    "SELECT 1 WHERE '1' IN file('FILE', 'LineAsString')",
    "SELECT 1 FROM usage ORDER BY file('FILE')",
    "SELECT * FROM usage AS u JOIN file('FILE', 'LineAsString') AS f ON 1 = 1",
    "SELECT * FROM (SELECT * FROM (SELECT * FROM file('FILE', 'LineAsString') AS usage) AS usage) AS usage",
    "SELECT arrayMap(x -> file('FILE'), [1])",
    "SELECT * FROM merge('default', '.*')",
    "SELECT * FROM executable('cat FILE', 'TSV', 's String')",
    "SELECT * FROM sqlite('FILE', 't')",
    "SELECT loadLLM('FILE'), catboostEvaluate('FILE', 1)",
  ],
  "an address": [
    "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
    "SELECT * FROM s3('http://127.0.0.1:1/b', 'LineAsString')",
    "SELECT * FROM remote('127.0.0.1:1', other.secrets)",
    "SELECT * FROM remoteSecure('127.0.0.1:1', 'other', 'secrets')",
    "SELECT * FROM postgresql('127.0.0.1:1', 'd', 't', 'u', 'p')",
    "SELECT * FROM mysql('127.0.0.1:1', 'd', 't', 'u', 'p')",
    "SELECT * FROM hdfs('hdfs://127.0.0.1:1/a', 'TSV')",
    "SELECT * FROM cluster('default', other.secrets)",
  ],
  "another table": [
    "SELECT * FROM secrets",
    "SELECT * FROM other.secrets",
    "SELECT * FROM `other`.`secrets`",
    'SELECT * FROM "other"."secrets"',
    "SELECT * FROM OTHER . SECRETS",
    "SELECT * FROM progress",
    "SELECT * FROM raw_events",
    "SELECT * FROM default.rollup",
    "SELECT * FROM system.tables",
    "SELECT * FROM system.one",
    "SELECT * FROM system.processes",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM (WITH secrets AS (SELECT 1) SELECT * FROM secrets) AS a, secrets",
    "WITH secrets AS (SELECT secret FROM other.secrets) SELECT * FROM secrets",
    "SELECT 'sentinel-7f3a' IN secrets",
    "SELECT 'sentinel-7f3a' IN (secrets)",
    "SELECT 'sentinel-7f3a' NOT IN other.secrets",
    "SELECT in('sentinel-7f3a', secrets)",
    "SELECT globalIn('sentinel-7f3a', secrets)",
    "SELECT nullIn('sentinel-7f3a', secrets)",
    "SELECT joinGet('secrets', 'secret', 1)",
    "SELECT dictGet('other.secrets', 'secret', 1)",
    "SELECT hasColumnInTable('other', 'secrets', 'secret')",
    "SELECT * FROM view(SELECT * FROM secrets)",
    "SELECT * FROM mergeTreeIndex('default', 'secrets')",
    "SELECT * FROM usage UNION ALL SELECT * FROM secrets",
    "SELECT 1 EXCEPT SELECT secret FROM secrets",
    "SELECT 1 FROM usage WHERE exists(SELECT 1 FROM secrets)",
    "SELECT * FROM usage_daily(timeZone = (SELECT secret FROM secrets))",
    "SELECT * FROM secrets FINAL",
    "FROM secrets SELECT secret",
    "TABLE secrets",
    "DESCRIBE secrets",
    "SHOW TABLES",
    "EXPLAIN SELECT * FROM secrets",
    "EXISTS secrets",
  ],
  writing: [
    "INSERT INTO secrets VALUES ('x')",
    "CREATE TABLE x (n UInt8) ENGINE = Memory",
    "CREATE TEMPORARY TABLE usage (n UInt8)",
    "DROP TABLE secrets",
    "TRUNCATE TABLE secrets",
    "ALTER TABLE secrets DELETE WHERE 1",
    "OPTIMIZE TABLE secrets",
    "DETACH TABLE secrets",
    "BACKUP TABLE secrets TO File('OUT')",
    "KILL QUERY WHERE 1",
    "SYSTEM SHUTDOWN",
    "SET readonly = 0",
    "USE other",
    "GRANT ALL ON *.* TO default",
    "SELECT 1 INTO OUTFILE 'OUT'",
    "SELECT 1 iNtO oUtFiLe 'OUT' FORMAT CSV",
    "SELECT 1 FORMAT CSV INTO OUTFILE 'OUT'",
    "SELECT 1 SETTINGS readonly = 0",
    "WITH 1 AS one INSERT INTO secrets SELECT toString(one)",
  ],
  "tricks of writing": [
    "SELECT 1; SELECT * FROM secrets",
    "SELECT 1;",
    "SELECT ';' FROM usage",
    "SELECT 1 -- ; \nUNION ALL SELECT secret FROM secrets",
    "SELECT 1 /* usage */ FROM secrets",
    "SELECT/**/secret/**/FROM/**/secrets",
    "SELECT 1 -- harmless",
    "SELECT 1 /* harmless */ FROM usage",
    "SELECT 1 # usage\nFROM secrets",
    "SELECT $a$text$a$ FROM usage",
    "SELECT \u2018a\u2019 FROM secrets",
    "SELECT\u00a0secret\u00a0FROM\u00a0secrets",
    "SELECT 1 FROM \u0455ecrets",
    "SELECT 1\u0000 FROM secrets",
    "SELECT 'it\\' FROM usage WHERE ' = 1 UNION ALL SELECT secret FROM secrets WHERE '' = ''",
    "SELECT x'\\' FROM usage' , secret FROM secrets",
    "SELECT `a\nTableIdentifier usage` FROM secrets",
    "SELECT `a (alias b)` FROM secrets",
    "SELECT 1 FROM usage `AS` (SELECT 1) secrets",
    "SELECT * EXCEPT customer APPLY(file) FROM usage",
    "SELECT COLUMNS('.*') FROM usage",
    "SELECT * FROM usage SAMPLE 1 / 10",
    "SELECT 1 ORDER BY 1 WITH FILL FROM 1 TO 1000000000",
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT * FROM r",
    "SELECT * FROM {t:Identifier}",
    "SELECT {t : Identifier} FROM usage",
    "SELECT * FROM usage FORMAT Parquet",
    "SELECT sleep(3)",
    "SELECT sleepEachRow(3) FROM usage",
    "SELECT * FROM numbers(1000000000000)",
    "SELECT * FROM generateRandom('a String')",
    "SELECT repeat('a', 1000000000)",
    "SELECT range(1000000000)",
    "SELECT getSetting('readonly'), hostName(), currentUser()",
    "SELECT addressToLine(1), demangle('a')",
    "SELECT initializeAggregation('sum', 1), arrayReduce('max', [1])",
    "SELECT evalMLMethod(1), throwIf(1)",
    "SELECT getServerPort('tcp_port'), filesystemAvailable()",
    "(SELECT 1) UNION ALL (SELECT secret FROM secrets)",
    "",
    "1 + 1",
  ],
};

describe("statements of analysts", () => {
  const all = Object.entries(ATTEMPTS).flatMap(([what, list]) => list.map((sql) => [what, sql] as const));

  test("there are attempts of every kind, far more than forty", () => {
    expect(new Set(all.map(([, sql]) => sql)).size).toBeGreaterThan(100);
  });

  test.each(all)("%s is refused: %s", async (_what, template) => {
    const sql = template
      .replaceAll("FILE'", `${join(folder, "secret.txt")}'`)
      .replaceAll("OUT'", `${join(folder, "out.txt")}'`);
    // Named, so that a placeholder is refused for its type and not for want of a value.
    const answer = await run(sql, { t: "secrets" });
    // What is no statement at all reaches the engine's parser, within EXPLAIN AST, and ends there.
    const isRefused = answer.kind === "refused" || (answer.kind === "failed" && answer.code === 62);
    expect(isRefused, JSON.stringify(answer)).toBe(true);
    expect(JSON.stringify(answer)).not.toContain(`${SENTINEL}\\n`);
  });

  test("after all of them nothing was written and the limits stand", async () => {
    await expect(access(join(folder, "out.txt"))).rejects.toThrow("ENOENT");
    const rows = await opened.store.select<{ secret: string }>("SELECT secret FROM secrets");
    expect(rows).toEqual([{ secret: SENTINEL }]);
    const settings = await textOf(
      "SELECT name, value FROM system.settings WHERE name IN ('readonly', 'max_execution_time', 'max_rows_to_read', 'max_memory_usage') ORDER BY name",
    );
    expect(settings).toBe(
      "max_execution_time\t20\nmax_memory_usage\t536870912\nmax_rows_to_read\t50000000\nreadonly\t1\n",
    );
  });

  test("the lists name every view there is and nothing else", async () => {
    const rows = await opened.store.select<{ name: string; sql: string }>(
      "SELECT name, create_table_query AS sql FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%View'",
    );
    const isParametrised = ({ sql }: { sql: string }): boolean => /\{\w+:/.test(sql);
    const names = (views: { name: string }[]): string[] => views.map(({ name }) => name).toSorted();
    expect(names(rows.filter(isParametrised))).toEqual([...PARAMETRISED_VIEWS].toSorted());
    expect(names(rows.filter((row) => !isParametrised(row)))).toEqual([...VIEWS].toSorted());
  });

  test.each([
    ["SELECT version(), timezone()", /^26\.\d+\.\d+\.\d+\tUTC\n$/],
    ["SELECT name, value, readonly AS readonly FROM system.settings LIMIT 10000", /^readonly\t1\t1$/m],
    ["SELECT sum(counted) FROM default.usage WHERE customer = 'acme'", /^1500\n$/],
    ["WITH u AS (SELECT customer FROM usage) SELECT count() FROM `u`", /^1500\n$/],
    [
      "SELECT sum(counted) FROM usage WHERE customer IN (SELECT customer FROM usage) AND meter IN ('tokens', 'x')",
      /^1500\n$/,
    ],
    ["SELECT CASE WHEN 2 > 1 THEN \"customer\" ELSE 'x' END AS `who is it` FROM usage LIMIT 1", /^acme\n$/],
    ["SELECT 'OUTFILE, SETTINGS, -- /* \\' '' }' FROM usage FORMAT TSVRaw", /refused.*the format TSVRaw/],
    ["SELECT 'OUTFILE, SETTINGS, -- /* \\' '' }' FROM usage LIMIT 1 FORMAT CSV", /OUTFILE, SETTINGS, -- \/\* ' ' \}/],
    ["SELECT quantity FROM usage_daily(timeZone = 'Asia/Tokyo') ORDER BY localDay LIMIT 2 - -1", /^120\n192\n192\n$/],
  ])("is allowed or said to be a mistake: %s", async (sql, answer) => {
    expect(await textOf(sql)).toMatch(answer);
  });

  test("values are bound as text, whatever they hold", async () => {
    const odd = "a'b\\c;d{e:Identifier}--/*\n\t😀\u0000";
    const escaped = odd
      .replaceAll("\\", "\\\\")
      .replaceAll("\n", "\\n")
      .replaceAll("\t", "\\t")
      .replaceAll("\u0000", "\\0");
    const text = await textOf("SELECT {odd:String} AS odd FORMAT JSONEachRow", { odd: escaped });
    expect(JSON.parse(text)).toEqual({ odd });
    expect(await textOf("SELECT customer FROM usage WHERE customer = {c:String}", { c: "' OR 1 = 1 OR '" })).toBe("");
    expect(await textOf("SELECT 'b' IN {list:Array(String)}", { list: "['a\\'','b']" })).toBe("1\n");
    expect(await textOf("SELECT {n:UInt64} + 1, {d:Decimal(38, 9)}", { n: "41", d: "0.000000001" })).toBe(
      "42\t0.000000001\n",
    );
    expect(
      await textOf("SELECT count() FROM usage WHERE windowStart < {at:DateTime('UTC')}", { at: "2026-11-02 00:00:00" }),
    ).toBe("96\n");
    expect(await textOf("SELECT {n:Nullable(Int8)} IS NULL", { n: "\\N" })).toBe("1\n");
    expect(await textOf("SELECT {n:UInt64}", { n: "1), file('x'" })).toMatch(/failed/);
    expect(await textOf("SELECT {missing:String}")).toMatch(/refused.*param_missing/);
  });

  test("time, rows, memory and the answer of one statement are bounded", async () => {
    const path = join(folder, "clickhouse");
    const wide = { timeMaxSeconds: 60, rowsReadMax: 1e9, memoryBytesMax: 1e9, resultRowsMax: 1e9, resultBytesMax: 1e9 };
    const codeWith = async (limits: Partial<typeof wide>, sql: string): Promise<unknown> => {
      const bounded = await openReadOnlySql({ path, limits: { ...wide, ...limits } });
      try {
        const params = new Map([["text", "a".repeat(20_000)]]);
        const answer = await bounded.run({ sql, params, defaultFormat: "CSV" });
        return answer.kind === "failed" ? answer.code : answer.kind;
      } finally {
        await bounded.close();
      }
    };
    const cube =
      "SELECT count() FROM usage AS a, usage AS b, usage AS c, usage AS d WHERE a.counted + b.counted > c.counted + d.counted";
    expect(await codeWith({ timeMaxSeconds: 1 }, cube)).toBe(159);
    const rows = "SELECT count(DISTINCT windowStart) FROM usage";
    expect(await codeWith({}, rows)).toBe("rows");
    expect(await codeWith({ rowsReadMax: 1_000 }, rows)).toBe(158);
    const long =
      "SELECT length(groupArray(concat({text:String}, toString(a.windowStart), toString(b.windowStart)))) FROM usage AS a, usage AS b";
    expect(await codeWith({ memoryBytesMax: 1e8 }, long)).toBe(241);
    const many = "SELECT a.windowStart FROM usage AS a, usage AS b";
    expect(await codeWith({ resultRowsMax: 1_000 }, many)).toBe(396);
    expect(await codeWith({ resultBytesMax: 1_000 }, many)).toBe(396);
  });

  test("who waits too many is told so, and the others are answered", async () => {
    const answers = await Promise.all(Array.from({ length: 30 }, () => run("SELECT count() FROM usage")));
    const kinds = new Set(answers.map(({ kind }) => kind));
    expect(kinds).toEqual(new Set(["rows", "busy"]));
    expect(answers.filter(({ kind }) => kind === "rows").length).toBeGreaterThanOrEqual(9);
  });
});
