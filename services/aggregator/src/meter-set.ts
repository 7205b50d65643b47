import { type CompiledMeter, compileMeter, type MeterVersion, type Mode } from "@tallyhouse/domain";

/** A meter version that counts, with the text that stands for it in rollup keys. */
export interface ActiveMeter {
  readonly compiled: CompiledMeter;
  readonly label: string;
}

const NO_METERS: readonly ActiveMeter[] = [];

/** The meters of one task: what `meter.activate` records below its position made. Only grows. */
export class MeterSet {
  readonly #labels = new Set<string>();
  readonly #byType = { live: new Map<string, ActiveMeter[]>(), test: new Map<string, ActiveMeter[]>() };

  /** Adds a version; false when it is there already: a version is immutable, so a repetition changes nothing. */
  add(version: MeterVersion): boolean {
    const label = meterLabel(version);
    if (this.#labels.has(label)) return false;
    this.#labels.add(label);
    const byType = this.#byType[version.mode];
    const { eventType } = version.rule;
    byType.set(eventType, [...(byType.get(eventType) ?? []), { compiled: compileMeter(version), label }]);
    return true;
  }

  /** Every active version for usage events of this mode and type, in order of activation. */
  of(mode: Mode, eventType: string): readonly ActiveMeter[] {
    return this.#byType[mode].get(eventType) ?? NO_METERS;
  }
}

/** `live/input_tokens/1`: meter keys hold no slash. */
export function meterLabel(version: Pick<MeterVersion, "mode" | "meter" | "version">): string {
  return `${version.mode}/${version.meter}/${version.version}`;
}
