/** When sweeps run: once a night, and when somebody asks. */
import { type ControlStore, DAY_MS, floorTo, HOUR_MS, type Mode, TallyhouseError } from "@tallyhouse/domain";
import { type Component, Counter, Gauge, type Logger, pause, type Registry } from "@tallyhouse/runtime";
import type { CorrectionPorts } from "./corrections.ts";
import { sweep, type SweepResult } from "./sweep.ts";

/** How often the sweeper looks for work. */
const POLL_MS = 1_000;

/** One sweep. Counts are null until it is finished; `dueAt` is null where somebody asked for it. */
export interface SweepRun {
  readonly id: number;
  readonly mode: Mode;
  readonly dueAt: number | null;
  readonly createdAt: number;
  readonly finishedAt: number | null;
  readonly result: SweepResult | null;
}

interface Row {
  readonly id: string;
  readonly mode: Mode;
  readonly due_at: Date | null;
  readonly created_at: Date;
  readonly finished_at: Date | null;
  readonly repeated: number | null;
  readonly voided: number | null;
  readonly left_over: number | null;
}

function runOf(row: Row): SweepRun {
  const { repeated, voided, left_over: leftOver } = row;
  return {
    id: Number(row.id),
    mode: row.mode,
    dueAt: row.due_at?.getTime() ?? null,
    createdAt: row.created_at.getTime(),
    finishedAt: row.finished_at?.getTime() ?? null,
    result: repeated === null || voided === null || leftOver === null ? null : { repeated, voided, leftOver },
  };
}

/**
 * Asks for a sweep of the mode; one that waits already is as good.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export function requestSweep(control: ControlStore, mode: Mode, now: number): Promise<SweepRun> {
  return control.transaction(async (tx) => {
    const [waiting] = await tx.query<Row>("SELECT * FROM sweep WHERE mode = $1 AND finished_at IS NULL ORDER BY id", [
      mode,
    ]);
    if (waiting !== undefined) return runOf(waiting);
    const [made] = await tx.query<Row>("INSERT INTO sweep (mode, created_at) VALUES ($1, $2) RETURNING *", [
      mode,
      new Date(now),
    ]);
    if (made === undefined) throw new Error("an insert gave no row");
    return runOf(made);
  });
}

/** The last sweeps of the mode, newest first. */
export async function listSweeps(control: ControlStore, mode: Mode, limit: number): Promise<SweepRun[]> {
  const rows = await control.query<Row>("SELECT * FROM sweep WHERE mode = $1 ORDER BY id DESC LIMIT $2", [mode, limit]);
  return rows.map(runOf);
}

/** The last `hour` o'clock, UTC. */
export function dueBefore(now: number, hour: number): number {
  return floorTo(now - hour * HOUR_MS, DAY_MS) + hour * HOUR_MS;
}

/** What a sweeper works with. */
type SweeperPorts = CorrectionPorts & { readonly logger: Logger; readonly metrics: Registry };

/**
 * The sweeper as a part of the process. A sweep is finished when it says so in its row, so that one that a kill cut is done again,
 * by this console or another one. Outages are retried for ever.
 */
export function createSweeper(config: { readonly hour: number }, ports: SweeperPorts): Component {
  const registers = [ports.metrics];
  const metrics = {
    voided: new Counter({
      name: "tallyhouse_console_swept_events_total",
      help: "Usage events that counted twice and were taken back by a sweep.",
      labelNames: ["mode"],
      registers,
    }),
    leftOver: new Gauge({
      name: "tallyhouse_console_sweep_left_events",
      help: "Usage events that counted twice and cannot be taken back, of the last sweep.",
      labelNames: ["mode"],
      registers,
    }),
    finished: new Gauge({
      name: "tallyhouse_console_sweep_finished_seconds",
      help: "When the last sweep of this process ended, epoch seconds.",
      labelNames: ["mode"],
      registers,
    }),
  };
  let plannedAt = 0;
  return {
    name: "console sweeper",
    async run(signal) {
      while (!signal.aborted) {
        try {
          const dueAt = dueBefore(ports.clock.now(), config.hour);
          if (dueAt !== plannedAt) await planNightly(ports, dueAt);
          plannedAt = dueAt;
          if (await workOff(ports, { metrics, isWanted: () => !signal.aborted })) continue;
        } catch (error) {
          if (!(error instanceof TallyhouseError) || error.action !== "retry") throw error;
          ports.logger.warn({ code: error.code, err: error }, "a sweep waits: will be tried again");
        }
        await pause(POLL_MS, signal);
      }
    },
    close: () => Promise.resolve(),
  };
}

/** One row for each mode and night, whichever console comes first. A night that nobody saw is done at the next start. */
async function planNightly(ports: SweeperPorts, dueAt: number): Promise<void> {
  await ports.control.query(
    `INSERT INTO sweep (mode, due_at, created_at) SELECT mode, $1, $2 FROM unnest(ARRAY['live', 'test']) AS mode
     ON CONFLICT (mode, due_at) DO NOTHING`,
    [new Date(dueAt), new Date(ports.clock.now())],
  );
}

/** Does the oldest sweep that is not finished; false when there is none, or it was not wanted to the end. */
async function workOff(
  ports: SweeperPorts,
  input: {
    readonly metrics: Readonly<Record<"voided", Counter> & Record<"leftOver" | "finished", Gauge>>;
    readonly isWanted: () => boolean;
  },
): Promise<boolean> {
  const [row] = await ports.control.query<Row>("SELECT * FROM sweep WHERE finished_at IS NULL ORDER BY id LIMIT 1");
  if (row === undefined) return false;
  const { id, mode } = runOf(row);
  const result = await sweep(ports, { mode, isWanted: input.isWanted });
  if (result === null) return false;
  const now = ports.clock.now();
  // Last: a kill before it does the sweep again, which finds nothing more to do.
  await ports.control.query(
    `UPDATE sweep SET finished_at = $2, repeated = $3, voided = $4, left_over = $5 WHERE id = $1 AND finished_at IS NULL`,
    [id, new Date(now), result.repeated, result.voided, result.leftOver],
  );
  input.metrics.voided.inc({ mode }, result.voided);
  input.metrics.leftOver.set({ mode }, result.leftOver);
  input.metrics.finished.set({ mode }, now / 1_000);
  const level = result.repeated > 0 ? "warn" : "info";
  ports.logger[level]({ sweep: id, mode, ...result }, "sweep for usage events that counted twice");
  return true;
}
