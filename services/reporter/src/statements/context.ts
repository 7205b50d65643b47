/** What sealing and re-rating work with, and what one round reads once for all of them. */
import {
  buildStatement,
  countPeriod,
  type PeriodCount,
  type SealedUsage,
  type StatementDocument,
  type StatementFacts,
} from "@tallyhouse/billing";
import { type AnalyticsStore, ceilTo, type ControlStore, type Mode } from "@tallyhouse/domain";
import type { BillingPeriod } from "@tallyhouse/plans";
import type { RatedPlan } from "@tallyhouse/pricing";
import type { Clock, Logger } from "@tallyhouse/runtime";
import { readDefinitions, readVersionVector, readWatermark, type SealedStream } from "@tallyhouse/usage";
import type { StatementMetrics } from "./statement-metrics.ts";

/** What the statements need. */
export interface StatementPorts {
  readonly analytics: AnalyticsStore;
  readonly control: ControlStore;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: StatementMetrics;
}

/** Constants of one process. */
export interface StatementSettings {
  readonly stream: SealedStream;
  readonly latenessSeconds: number;
  readonly rerateIntervalSeconds: number;
}

/** What is common to everything a round does for one mode. The watermark is older than the definitions, as a seal demands. */
export class SealingRound {
  readonly mode: Mode;
  readonly ports: StatementPorts;
  readonly settings: StatementSettings;
  readonly sealed: SealedUsage;
  readonly #vectors = new Map<number, Promise<readonly number[]>>();

  private constructor(mode: Mode, parts: { ports: StatementPorts; settings: StatementSettings; sealed: SealedUsage }) {
    this.mode = mode;
    this.ports = parts.ports;
    this.settings = parts.settings;
    this.sealed = parts.sealed;
  }

  /** Null until every partition of the stream has stored its progress. */
  static async open(
    mode: Mode,
    parts: { readonly ports: StatementPorts; readonly settings: StatementSettings },
  ): Promise<SealingRound | null> {
    const { analytics } = parts.ports;
    const { stream } = parts.settings;
    const watermarkAt = await readWatermark(analytics, stream);
    if (watermarkAt === null) return null;
    const definitions = await readDefinitions(analytics, stream, { mode });
    return new SealingRound(mode, { ...parts, sealed: { watermarkAt, definitions } });
  }

  /** Where the period's statement is cut: a function of the period alone, so a repeat after a crash reads the same figures. */
  cutOfPeriod(endAt: number): number {
    const { latenessSeconds, stream } = this.settings;
    return ceilTo(endAt + latenessSeconds * 1_000, stream.bookingWindowSeconds * 1_000);
  }

  count(of: CountedPart): Promise<PeriodCount> {
    return countPeriod(this.ports.analytics, this.sealed, { mode: this.mode, ...of });
  }

  /** Everything that a statement says before it is rated. */
  async facts(of: CountedPart, count: Extract<PeriodCount, { kind: "counted" }>): Promise<StatementFacts> {
    const { latenessSeconds, stream } = this.settings;
    const { items, rules } = count;
    return {
      ...of,
      mode: this.mode,
      closing: { latenessSeconds, bookingWindowSeconds: stream.bookingWindowSeconds },
      versionVector: { stream: stream.streamId, offsets: await this.#vectorAt(of.cutAt) },
      items,
      rules,
    };
  }

  /** Most periods of a round end at one instant: their vector is read once. */
  #vectorAt(cutAt: number): Promise<readonly number[]> {
    const vector = this.#vectors.get(cutAt) ?? readVersionVector(this.ports.analytics, this.settings.stream, cutAt);
    this.#vectors.set(cutAt, vector);
    return vector;
  }
}

/** Which period is counted, by which plan, at which cut. */
export interface CountedPart {
  readonly customer: string;
  readonly period: StatementFacts["period"];
  readonly plan: RatedPlan;
  readonly cutAt: number;
}

/** What a document says of a billing period. */
export function statementPeriodOf(period: BillingPeriod): StatementFacts["period"] {
  const { startAt, endAt, anchorAt, isCutShort, plan } = period;
  return { startAt, endAt, anchorAt, isCutShort, interval: plan.interval };
}

/** A sealed statement, or why there is none. */
export type Sealing =
  | { readonly kind: "document"; readonly document: StatementDocument }
  | Exclude<PeriodCount, { kind: "counted" }>;

/** Counts and rates a period for its statement. */
export async function sealOf(round: SealingRound, part: CountedPart): Promise<Sealing> {
  const count = await round.count(part);
  if (count.kind !== "counted") return count;
  return { kind: "document", document: buildStatement(await round.facts(part, count)) };
}
