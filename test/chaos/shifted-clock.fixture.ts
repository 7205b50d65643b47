/**
 * Preloaded into a process under test (`node --import`): its clock is wrong by CHAOS_CLOCK_SHIFT_MS from its first line on.
 * Timers and `performance.now()` stay right, as they do on a machine whose date is wrong.
 */
import process from "node:process";

const SHIFT_MS = Number(process.env["CHAOS_CLOCK_SHIFT_MS"] ?? 0);
const RightDate = globalThis.Date;

class ShiftedDate extends RightDate {
  constructor(...args: readonly unknown[]) {
    if (args.length === 0) super(ShiftedDate.now());
    else super(...(args as [number]));
  }

  static override now(): number {
    return RightDate.now() + SHIFT_MS;
  }
}

globalThis.Date = ShiftedDate as DateConstructor;
