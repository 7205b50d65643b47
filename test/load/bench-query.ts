/**
 * `npm run bench:query -- --events N --customers N --seed S`: how long questions about a month take. The month is stored by SQL
 * (stored-usage.ts), then asked for through the console's HTTP application: first while another day is being stored, with parts as
 * inserts leave them, then with everything merged. The last line is one JSON object with every figure.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { numberOptions } from "./month-options.ts";
import { printFigures } from "./options.ts";
import { openMonth } from "./month-stores.ts";
import { QUESTIONS } from "./read-bench.ts";
import { readDisk } from "./disk.ts";

const options = numberOptions({ events: 1_000_000, customers: 10_000, seed: 1 });
const folder = mkdtempSync(join(tmpdir(), "tallyhouse-bench-query-"));
try {
  const month = await openMonth(folder, options);
  try {
    const fillSeconds = await month.fill();
    const filled = month.stored();
    const figures: Record<string, string | number> = {};
    for (const state of ["ingest", "merged"] as const) {
      const ingest = state === "ingest" ? month.ingest() : null;
      if (state === "merged") await month.merge();
      for (const question of QUESTIONS) {
        const timing = await month.reads.ask(question, question === "top customers" ? 20 : 100);
        process.stderr.write(`${state}, ${question}: ${JSON.stringify(timing)}\n`);
        const name = `${state} ${question}`.replaceAll(/ (\w)/g, (_, letter: string) => letter.toUpperCase());
        figures[`${name}P50Ms`] = timing.p50Ms;
        figures[`${name}P95Ms`] = timing.p95Ms;
      }
      if (ingest !== null) figures["eventsStoredMeanwhile"] = await ingest.stop();
    }
    const disk = await readDisk(month.analytics, month.stored());
    process.stderr.write(disk.text);
    printFigures({
      bench: "query",
      seed: options.seed,
      events: month.stored(),
      customers: options.customers,
      storedPerSecond: Math.round(filled / fillSeconds),
      peakRssMegabytes: Math.round(process.resourceUsage().maxRSS / 1_000),
      ...figures,
      diskBytesPerEvent: disk.bytesPerEvent,
      ...Object.fromEntries(
        ["raw_events", "identities", "rollup"].map((table) => [`${table}BytesPerEvent`, disk.tables[table] ?? 0]),
      ),
      cores: cpus().length,
    });
  } finally {
    await month.close();
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
