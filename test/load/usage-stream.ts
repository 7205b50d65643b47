import { seededRandom } from "@tallyhouse/standalone/demo";

const CUSTOMERS = 1_000;
const DUPLICATE_SHARE = 0.1;
/** One in so many identities is late, of one of so few customers: enough for the reporter to have work all the time. */
const LATE_EVERY = 100;
const LATE_CUSTOMERS = 20;
const HOUR_MS = 3_600_000;

/** One usage event of some 220 bytes. */
export interface StreamedEvent {
  readonly id: string;
  /** A structured CloudEvent. */
  readonly text: string;
  readonly customer: string;
  readonly inputTokens: number;
  /** Sent before, content and all. */
  readonly isRepeat: boolean;
  /** Occurred in an hour that had ended, and is so to be billed at once. */
  readonly isLate: boolean;
}

/**
 * An endless seeded stream of usage events; a tenth repeats an identity sent before. The n-th identity has the id `idOf(n)`, counted
 * from 0. With `hasLate`, one identity in a hundred occurred one to three hours ago.
 */
export function* usageStream(options: {
  seed: number;
  nowAt: number;
  idOf?: (n: number) => string;
  hasLate?: boolean;
}): Generator<StreamedEvent> {
  const { seed, nowAt, idOf = (n) => `bench-${seed}-${n}`, hasLate = false } = options;
  const random = seededRandom(seed);
  const recent: StreamedEvent[] = [];
  for (let n = 0; ;) {
    const again = recent[Math.floor(random() * recent.length)];
    if (again !== undefined && random() < DUPLICATE_SHARE) {
      yield { ...again, isRepeat: true };
      continue;
    }
    const isLate = hasLate && n % LATE_EVERY === 0;
    const customer = isLate
      ? `cus_late_${Math.floor(random() * LATE_CUSTOMERS)}`
      : `cus_${Math.floor(random() * CUSTOMERS)}`;
    const time = new Date(isLate ? nowAt - (1 + Math.floor(random() * 3)) * HOUR_MS : nowAt).toISOString();
    const id = idOf(n);
    const inputTokens = 1 + Math.floor(random() * 4_000);
    const outputTokens = 1 + Math.floor(random() * 800);
    const text = `{"specversion":"1.0","id":"${id}","source":"bench","type":"llm.request","subject":"${customer}","time":"${time}","datacontenttype":"application/json","data":{"inputTokens":${inputTokens},"outputTokens":${outputTokens},"model":"small"}}`;
    const event = { id, text, customer, inputTokens, isRepeat: false, isLate };
    if (recent.length < 10_000) recent.push(event);
    else recent[n % 10_000] = event;
    n += 1;
    yield event;
  }
}
