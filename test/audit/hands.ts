/** Hands that alter what is stored, one row at a time, and put everything back. */
import type { AnalyticsStore } from "@tallyhouse/domain";
import { expect } from "vitest";

const TABLES = ["raw_events", "identities", "rollup", "rollup_uniq", "control_records", "progress"] as const;
type Table = (typeof TABLES)[number];
/** What tells rows of a table apart; the first of them in this order is the one that is chosen. */
const KEYS: Readonly<Record<Table, string>> = {
  raw_events: "stream, logPartition, logOffset",
  identities: "stream, logPartition, logOffset",
  rollup: "customer, meter, windowStart, dims, stream, logPartition, lane, bookedStart",
  rollup_uniq: "customer, meter, windowStart, dims, valueHash, bookedStart",
  control_records: "stream, logPartition, logOffset",
  progress: "stream, logPartition",
};

/** Every row that is chosen is in `kept_…` tables, which `keep` makes. */
export function handsOn(store: () => AnalyticsStore) {
  /** Copies every table, as it is without repetitions. */
  async function keep(): Promise<void> {
    for (const table of TABLES) {
      await store().execute(`CREATE TABLE kept_${table} AS ${table}`);
      await store().execute(`INSERT INTO kept_${table} SELECT * FROM ${table} FINAL`);
    }
  }

  async function restore(): Promise<void> {
    await store().execute("SYSTEM START MERGES");
    for (const table of TABLES) {
      await store().execute(`TRUNCATE TABLE ${table}`);
      await store().execute(`INSERT INTO ${table} SELECT * FROM kept_${table}`);
    }
  }

  /** Text of the one row of a table that the condition and the order choose, as a condition. */
  const chosen = (table: Table, condition: string, order = KEYS[table]): string =>
    `(${KEYS[table]}) = (SELECT ${KEYS[table]} FROM kept_${table} WHERE ${condition} ORDER BY ${order} LIMIT 1)`;

  async function expectChosen(table: Table, condition: string): Promise<void> {
    const [row] = await store().select<{ rows: string }>(
      `SELECT toString(count()) AS rows FROM kept_${table} WHERE ${chosen(table, condition)}`,
    );
    expect(row?.rows, "an alteration must have a row to alter").toBe("1");
  }

  async function remove(table: Table, condition: string, order?: string): Promise<void> {
    await expectChosen(table, condition);
    await store().execute(
      `ALTER TABLE ${table} DELETE WHERE ${chosen(table, condition, order)} SETTINGS mutations_sync = 2`,
    );
  }

  /** A second row beside the chosen one, with other values. */
  async function add(table: Table, values: string, condition: string): Promise<void> {
    await expectChosen(table, condition);
    await store().execute(
      // Inside, because an alias of REPLACE would stand for the column in the condition.
      `INSERT INTO ${table} SELECT * REPLACE (${values}) FROM (SELECT * FROM kept_${table} WHERE ${chosen(table, condition)})`,
    );
  }

  /** The chosen row with other values. */
  async function alter(table: Table, values: string, condition: string): Promise<void> {
    await remove(table, condition);
    await add(table, values, condition);
  }

  /** The second copy that a replay writes, with other values; nothing may merge the two. */
  async function addCopy(values: string, condition: string): Promise<void> {
    await store().execute("SYSTEM STOP MERGES raw_events");
    await add("raw_events", values, condition);
  }

  return { keep, restore, remove, add, alter, addCopy };
}
