/** Bytes on disk per raw event, by table and column. */
import type { AnalyticsStore } from "@tallyhouse/domain";

/** What the active parts take. */
export interface Disk {
  readonly bytesPerEvent: number;
  /** Bytes per raw event of each table, marks, primary keys and skip indexes included. */
  readonly tables: Readonly<Record<string, number>>;
  /** A table for people, with every column of half a byte or more. */
  readonly text: string;
}

/** Reads what the engine says of its active parts. */
export async function readDisk(analytics: AnalyticsStore, events: number): Promise<Disk> {
  const parts = await analytics.select<{ table: string; bytes: string; parts: string; rows: string }>(
    `SELECT table, toString(sum(bytes_on_disk)) AS bytes, toString(count()) AS parts, toString(sum(rows)) AS rows
     FROM system.parts WHERE active AND database = currentDatabase() AND table != 'bench_usage' GROUP BY table ORDER BY sum(bytes_on_disk) DESC`,
  );
  const columns = await analytics.select<{ table: string; column: string; bytes: string }>(
    `SELECT table, column, toString(sum(column_data_compressed_bytes)) AS bytes
     FROM system.parts_columns WHERE active AND database = currentDatabase() AND table != 'bench_usage' GROUP BY table, column
     ORDER BY sum(column_data_compressed_bytes) DESC`,
  );
  const perEvent = (bytes: string): number => Number((Number(bytes) / events).toFixed(2));
  const tables = Object.fromEntries(parts.map(({ table, bytes }) => [table, perEvent(bytes)]));
  const lines = parts.map(({ table, bytes, parts: count, rows }) => {
    const own = columns.filter((column) => column.table === table && perEvent(column.bytes) >= 0.05);
    const list = own.map(({ column, bytes: of }) => `${column} ${perEvent(of)}`).join(", ");
    return `${table}: ${perEvent(bytes)} B per raw event, ${rows} rows in ${count} parts: ${list}`;
  });
  const total = parts.reduce((sum, { bytes }) => sum + Number(bytes), 0);
  return { bytesPerEvent: perEvent(String(total)), tables, text: `${lines.join("\n")}\n` };
}
