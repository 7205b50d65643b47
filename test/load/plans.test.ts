/** Each question about usage reads by the primary key: the plans of docs/reads.md, asked of the engine. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { migrateClickHouse, openClickHouse, type OpenedClickHouse } from "@tallyhouse/clickhouse";
import { type AnalyticsStore, DAY_MS, HOUR_MS } from "@tallyhouse/domain";
import {
  type MeterDefinition,
  readCustomerTotals,
  readDefinitions,
  readSealedTotals,
  readUsageGroups,
  UTC,
} from "@tallyhouse/usage";
import { afterAll, beforeAll, expect, test } from "vitest";
import { customerName, MONTH_STREAM, storeActivations, storeDay, type StoredMonth } from "./stored-usage.ts";

const MIGRATIONS = fileURLToPath(new URL("../../infra/clickhouse", import.meta.url));
/** One day of it is stored: 300,000 usage events, 75 granules of rollups and 37 of raw events. */
const MONTH: StoredMonth = { events: 9_000_000, customers: 1_000, seed: 3, fromAt: Date.UTC(2026, 9, 20) };
const CUSTOMER = customerName(500);
/** One customer's rows begin in one granule and end in the next, of each part. */
const GRANULES_OF_PART_MAX = 3;

/** How one table of one statement is read. */
interface TableRead {
  readonly table: string;
  readonly keys: readonly string[];
  readonly parts: number;
  readonly granules: number;
  readonly granulesOfTable: number;
}

interface PlanNode {
  readonly Description?: string;
  readonly Plans?: readonly PlanNode[];
  readonly Indexes?: readonly {
    readonly Type: string;
    readonly Keys?: readonly string[];
    readonly "Initial Granules": number;
    readonly "Selected Granules": number;
    readonly "Selected Parts": number;
  }[];
}

let folder: string;
let opened: OpenedClickHouse;
let definition: MeterDefinition;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tallyhouse-plans-"));
  opened = await openClickHouse({ path: folder });
  await migrateClickHouse(opened.store, MIGRATIONS);
  const offsets = await storeActivations(opened.store, MONTH);
  await storeDay(opened.store, { month: MONTH, day: 0, offsets });
  const [first] = await readDefinitions(opened.store, MONTH_STREAM, { mode: "live", meter: "input_tokens" });
  if (first === undefined) throw new Error("the meter is active");
  definition = first;
});
afterAll(async () => {
  await opened.close();
  await rm(folder, { recursive: true });
});

/** An analytics store that answers, and notes how each statement is read. */
function explained(): { analytics: AnalyticsStore; reads: TableRead[] } {
  const reads: TableRead[] = [];
  const analytics: AnalyticsStore = {
    ...opened.store,
    async select<Row>(sql: string, params?: Readonly<Record<string, unknown>>): Promise<Row[]> {
      const rows = await opened.store.select<{ explain: string }>(`EXPLAIN json = 1, indexes = 1 ${sql}`, params);
      const plans = JSON.parse(rows.map(({ explain }) => explain).join("\n")) as readonly { Plan: PlanNode }[];
      for (const { Plan } of plans) noteReads(Plan, reads);
      return opened.store.select<Row>(sql, params);
    },
  };
  return { analytics, reads };
}

function noteReads(node: PlanNode, reads: TableRead[]): void {
  const indexes = node.Indexes ?? [];
  const key = indexes.find(({ Type }) => Type === "PrimaryKey");
  if (key !== undefined)
    reads.push({
      table: node.Description?.split(".").at(-1) ?? "",
      keys: key.Keys ?? [],
      parts: key["Selected Parts"],
      granules: indexes.at(-1)?.["Selected Granules"] ?? key["Selected Granules"],
      granulesOfTable: indexes[0]?.["Initial Granules"] ?? 0,
    });
  for (const child of node.Plans ?? []) noteReads(child, reads);
}

const DAY = { mode: "live", fromAt: MONTH.fromAt, toAt: MONTH.fromAt + DAY_MS, groupBy: [] } as const;
const LIMITS = { cutAt: null, watermarkAt: null, rowsMax: 10_000, eventsMax: 100_000 };

function of(reads: readonly TableRead[], table: string): readonly TableRead[] {
  const found = reads.filter((read) => read.table === table);
  expect(found.length, `${table} is read`).toBeGreaterThan(0);
  return found;
}

function expectOneCustomer(reads: readonly TableRead[], keys: readonly string[]): void {
  for (const read of reads) {
    expect(read.keys).toEqual(keys);
    expect(read.granulesOfTable).toBeGreaterThan(30);
    expect(read.granules).toBeGreaterThan(0);
    expect(read.granules).toBeLessThanOrEqual(GRANULES_OF_PART_MAX * read.parts);
  }
}

const ROLLUP_KEY = ["mode", "customer", "meter", "meterVersion", "windowStart"];
const RAW_KEY = ["mode", "customer", "type", "toStartOfFifteenMinutes(occurredAt)"];

test("one customer's usage by hour reads the customer's granules by the whole key", async () => {
  const { analytics, reads } = explained();
  const reading = await readUsageGroups(analytics, {
    ...DAY,
    ...LIMITS,
    customer: CUSTOMER,
    definition,
    window: "hour",
    zone: UTC,
  });
  expect(reading.kind === "groups" && reading.groups.length).toBeGreaterThan(10);
  expectOneCustomer(of(reads, "rollup"), ROLLUP_KEY);
});

test("a bill's total, and its edges from raw usage events, read the customer's granules by the whole key", async () => {
  const { analytics, reads } = explained();
  const cutAt = MONTH.fromAt + 23 * HOUR_MS;
  const period = { fromAt: MONTH.fromAt + 1_000, toAt: cutAt - 1_000, cutAt };
  const question = {
    mode: "live",
    customer: CUSTOMER,
    meter: "input_tokens",
    version: 1,
    groupBy: [],
    ...period,
  } as const;
  const reading = await readSealedTotals(analytics, MONTH_STREAM, question);
  expect(reading.kind).toBe("totals");
  expectOneCustomer(of(reads, "rollup"), ROLLUP_KEY);
  expectOneCustomer(of(reads, "raw_events"), RAW_KEY);
});

test("windows with corrections are looked for by the whole key", async () => {
  const { analytics, reads } = explained();
  const { version } = definition;
  const largest = { ...definition, version: { ...version, rule: { ...version.rule, aggregation: "max" as const } } };
  await readUsageGroups(analytics, {
    ...DAY,
    ...LIMITS,
    customer: CUSTOMER,
    definition: largest,
    window: "day",
    zone: UTC,
  });
  expectOneCustomer(of(reads, "rollup"), ROLLUP_KEY);
});

test("the largest customers are found by the key, too, though among all of the mode", async () => {
  const { analytics, reads } = explained();
  const reading = await readCustomerTotals(analytics, { ...DAY, definition, limit: 10, eventsMax: 1 });
  expect(reading.kind === "customers" && reading.customers).toHaveLength(10);
  for (const read of of(reads, "rollup")) expect(read.keys).toEqual(ROLLUP_KEY);
});

test("months that cannot hold the range are not looked at", async () => {
  const { analytics, reads } = explained();
  const later = { ...DAY, fromAt: MONTH.fromAt + 60 * DAY_MS, toAt: MONTH.fromAt + 90 * DAY_MS };
  const reading = await readUsageGroups(analytics, {
    ...later,
    ...LIMITS,
    customer: CUSTOMER,
    definition,
    window: "hour",
    zone: UTC,
  });
  expect(reading).toEqual({ kind: "groups", groups: [] });
  expect(reads.filter(({ granules }) => granules > 0)).toEqual([]);
});
