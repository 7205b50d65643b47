/** Plans as they are stored: what the file says, with its defaults filled in. */
import type { Mode } from "@tallyhouse/domain";
import type { DecimalText, Price } from "@tallyhouse/pricing";

/** How long a period is. */
export type Interval = "month" | "year";

/** Rate limits of a plan; read by the gateway's decisions. */
export interface PlanLimits {
  readonly minute?: { readonly limit: number; readonly burst?: number; readonly kind?: "bucket" | "strict" };
  readonly day?: { readonly limit: number };
  readonly perKey?: {
    readonly minute?: { readonly limit: number; readonly burst?: number };
    readonly day?: { readonly limit: number };
  };
  readonly countersDown?: "local" | "deny";
}

/** One item: a meter, what of it is included, the policy beyond, the price. */
export interface PlanItem {
  readonly meter: string;
  /** Dimension → values. */
  readonly where: Readonly<Record<string, readonly string[]>>;
  readonly included: DecimalText | null;
  readonly policy: "block" | "overage" | "throttle" | "auto_upgrade";
  readonly cap: DecimalText | null;
  readonly price: Price | null;
  readonly to: string | null;
  readonly throttle: { readonly limit: number } | null;
}

/** A plan with its defaults filled in. `custom`: every customer's contract must set it. */
export interface Plan {
  readonly key: string;
  readonly currency: string;
  readonly interval: Interval;
  readonly price: DecimalText | "custom";
  readonly billing: "stripe" | "none";
  readonly alerts: readonly number[];
  readonly latePolicy: "carry_forward" | "invoice_item" | "credit_note" | "write_off";
  readonly allow: readonly string[];
  readonly deny: readonly string[];
  readonly limits: PlanLimits | "custom";
  readonly items: Readonly<Record<string, PlanItem>> | "custom";
  readonly features: Readonly<Record<string, boolean | number | "unlimited">>;
  readonly support: { readonly level: string; readonly responseHours?: number } | null;
  readonly sla: { readonly uptimePercent: DecimalText; readonly creditPercent: DecimalText } | null;
  readonly dunning: { readonly suspend: "never" | "after_grace" } | null;
}

/** An immutable version of a plan. */
export interface PlanVersion {
  readonly mode: Mode;
  readonly key: string;
  readonly version: number;
  /** SHA-256 (hex) of the plan with its meter versions: equal digests are one version. */
  readonly digest: string;
  readonly plan: Plan;
  /** The version that each meter of the plan's items had when this version was applied. */
  readonly meterVersions: Readonly<Record<string, number>>;
  readonly createdAt: number;
}
