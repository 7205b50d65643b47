/** What `/readyz` of a reporter says: its own state, its dependencies, and how far it is. */
import type { AnalyticsStore, ControlStore } from "@tallyhouse/domain";
import { type Clock, type Readiness, readinessOf } from "@tallyhouse/runtime";
import type { ReporterStatus } from "./app.ts";

/** Asks both stores each time; Stripe is judged by what it last answered. */
export async function readReadiness(
  reporter: { status(): ReporterStatus },
  ports: { readonly analytics: AnalyticsStore; readonly control: ControlStore; readonly clock: Clock },
): Promise<Readiness> {
  const { isReady, accounts, plannedAt, watermarkAt } = reporter.status();
  const now = ports.clock.now();
  const ages = { plannedAgeMs: plannedAt, watermarkAgeMs: watermarkAt };
  return readinessOf({
    states: {
      reporter: isReady ? "ok" : "no round succeeds",
      ...Object.fromEntries(
        accounts.map(({ mode, isStopped }) => [`stripe ${mode}`, isStopped ? "refuses the key" : "ok"]),
      ),
    },
    probes: {
      analyticsStore: () => ports.analytics.select("SELECT 1"),
      controlStore: () => ports.control.query("SELECT 1"),
    },
    figures: () =>
      Object.fromEntries(Object.entries(ages).flatMap(([name, at]) => (at === null ? [] : [[name, now - at]]))),
  });
}
