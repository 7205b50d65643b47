/** Plans as an apply would have stored them: used by tests alone. */
import type { ControlStore, Mode } from "@tallyhouse/domain";
import { type Interval, type Plan, planDigest } from "@tallyhouse/plans";

/** Stores one version of a plan without items. */
export async function storePlan(
  control: ControlStore,
  given: {
    readonly key: string;
    readonly version: number;
    readonly createdAt: number;
    readonly mode?: Mode;
    readonly price?: string;
    readonly currency?: string;
    readonly interval?: Interval;
  },
): Promise<void> {
  const { key, version, createdAt, mode = "live", price = "49", currency = "usd", interval = "month" } = given;
  const plan: Plan = {
    key,
    currency,
    interval,
    price,
    billing: "stripe",
    alerts: [80, 100],
    latePolicy: "carry_forward",
    allow: ["* /**"],
    deny: [],
    limits: {},
    items: {},
    features: {},
    support: null,
    sla: null,
    dunning: null,
  };
  await control.query(
    `INSERT INTO catalogue_version (mode, kind, key, version, digest, body, created_at, created_by)
     VALUES ($1, 'plan', $2, $3, $4, $5::text::json, $6, 'test')`,
    [mode, key, version, planDigest(plan, {}), JSON.stringify({ plan, meterVersions: {} }), new Date(createdAt)],
  );
}
