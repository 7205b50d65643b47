import type { ControlStore, SqlRunner } from "@tallyhouse/domain";

/** A control store that adds up the time of each kind of statement. */
export function watchControl(control: ControlStore): { store: ControlStore; report(): string } {
  let kinds = new Map<string, { ms: number; calls: number }>();
  const add = (kind: string, startedAt: number): void => {
    const entry = kinds.get(kind) ?? { ms: 0, calls: 0 };
    kinds.set(kind, { ms: entry.ms + performance.now() - startedAt, calls: entry.calls + 1 });
  };
  const watched = (runner: SqlRunner): SqlRunner => ({
    async query<Row>(sql: string, params?: readonly unknown[]): Promise<Row[]> {
      const startedAt = performance.now();
      const rows = await runner.query<Row>(sql, params);
      add(sql.replaceAll(/\s+/g, " ").trim().slice(0, 70), startedAt);
      return rows;
    },
  });
  return {
    store: {
      ...watched(control),
      execute: (script) => control.execute(script),
      async transaction(body) {
        const startedAt = performance.now();
        const result = await control.transaction((tx) => body(watched(tx)));
        add("(whole transactions)", startedAt);
        return result;
      },
    },
    /** A line for each kind, the longest first; the next report begins anew. */
    report() {
      const lines = [...kinds].sort((a, b) => b[1].ms - a[1].ms);
      kinds = new Map();
      return lines
        .map(([kind, { ms, calls }]) => `${ms.toFixed(0).padStart(8)} ms ${String(calls).padStart(6)}  ${kind}\n`)
        .join("");
    },
  };
}
