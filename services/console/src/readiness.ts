/** What `/readyz` of a console says: its dependencies, and whether control records wait. */
import type { AnalyticsStore, ControlStore, EventLog } from "@tallyhouse/domain";
import { type Readiness, readinessOf } from "@tallyhouse/runtime";

/** A record that waits longer for the log is stuck; the outbox looks several times a second. */
const WAITING_MAX_SECONDS = 20;

/** Asks all three outside systems each time. */
export function readReadiness(ports: {
  readonly log: EventLog;
  readonly analytics: AnalyticsStore;
  readonly control: ControlStore;
  readonly stream: { readonly streamId: number };
}): Promise<Readiness> {
  const { log, analytics, control, stream } = ports;
  return readinessOf({
    probes: {
      eventLog: () => log.bounds(0),
      analyticsStore: () => analytics.select("SELECT 1"),
      controlStore: () => control.query("SELECT 1"),
      outbox: async () => {
        const stuck = await control.query(
          `SELECT id FROM control_outbox
           WHERE appended_at IS NULL AND stream = $1 AND created_at < now() - interval '${WAITING_MAX_SECONDS} seconds' LIMIT 1`,
          [stream.streamId],
        );
        if (stuck.length > 0) throw new Error("control records wait for the log");
      },
    },
  });
}
