import { seededRandom } from "@tallyhouse/standalone/demo";

const CUSTOMERS = 1_000;
const DUPLICATE_SHARE = 0.1;
/** An endless seeded stream of usage events of some 220 bytes; a tenth repeats an identity sent before, content and all. */
export function* usageStream(options: {
  seed: number;
  nowAt: number;
}): Generator<{ id: string; text: string; customer: string }> {
  const random = seededRandom(options.seed);
  const time = new Date(options.nowAt).toISOString();
  const recent: { id: string; text: string; customer: string }[] = [];
  for (let n = 0; ; n += 1) {
    const again = recent[Math.floor(random() * recent.length)];
    if (again !== undefined && random() < DUPLICATE_SHARE) {
      yield again;
      continue;
    }
    const customer = `cus_${Math.floor(random() * CUSTOMERS)}`;
    const id = `bench-${options.seed}-${n}`;
    const inputTokens = 1 + Math.floor(random() * 4_000);
    const outputTokens = 1 + Math.floor(random() * 800);
    const text = `{"specversion":"1.0","id":"${id}","source":"bench","type":"llm.request","subject":"${customer}","time":"${time}","datacontenttype":"application/json","data":{"inputTokens":${inputTokens},"outputTokens":${outputTokens},"model":"small"}}`;
    const event = { id, text, customer };
    if (recent.length < 10_000) recent.push(event);
    else recent[n % 10_000] = event;
    yield event;
  }
}
