import { type CompiledMeter, compileMeter, type MeterVersion, type Mode } from "@tallyhouse/domain";

/** A meter version that counts, with the text that stands for it in rollup keys. */
export interface ActiveMeter {
  readonly compiled: CompiledMeter;
  readonly label: string;
  /** Usage that occurs at or after it does not count; infinity until a `meter.end` says otherwise. Epoch milliseconds. */
  untilAt: number;
}

/** What tells one meter version from every other. */
export type MeterName = Pick<MeterVersion, "mode" | "meter" | "version">;

const NO_METERS: readonly ActiveMeter[] = [];

/** The meters of one task: what the `meter.activate` and `meter.end` records below its position made. Only grows. */
export class MeterSet {
  readonly #byLabel = new Map<string, ActiveMeter>();
  readonly #byType = { live: new Map<string, ActiveMeter[]>(), test: new Map<string, ActiveMeter[]>() };

  /** Adds a version; false when it is there already: a version is immutable, so a repetition changes nothing. */
  add(version: MeterVersion): boolean {
    const label = meterLabel(version);
    if (this.#byLabel.has(label)) return false;
    const meter: ActiveMeter = { compiled: compileMeter(version), label, untilAt: Number.POSITIVE_INFINITY };
    this.#byLabel.set(label, meter);
    const byType = this.#byType[version.mode];
    const { eventType } = version.rule;
    byType.set(eventType, [...(byType.get(eventType) ?? []), meter]);
    return true;
  }

  /** Ends a version at an instant. Of several ends the earliest holds, whatever their order. */
  end(version: MeterName, untilAt: number): "ended" | "ends earlier" | "unknown" {
    const meter = this.#byLabel.get(meterLabel(version));
    if (meter === undefined) return "unknown";
    if (meter.untilAt <= untilAt) return "ends earlier";
    meter.untilAt = untilAt;
    return "ended";
  }

  /** Every active version for usage events of this mode and type, in order of activation. */
  of(mode: Mode, eventType: string): readonly ActiveMeter[] {
    return this.#byType[mode].get(eventType) ?? NO_METERS;
  }
}

/** `live/input_tokens/1`: meter keys hold no slash. */
export function meterLabel(version: MeterName): string {
  return `${version.mode}/${version.meter}/${version.version}`;
}
