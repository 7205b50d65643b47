import { expect, test } from "vitest";
import { LoadBodies } from "./load-bodies.ts";

interface Sent {
  readonly id: string;
  readonly time: string;
  readonly subject: string;
  readonly data: { readonly inputTokens: number };
}
const headOf = (bodyBytes: number): string => `content-length: ${bodyBytes}\r\n\r\n`;
const NOW = Date.UTC(2026, 10, 21, 12);

/** Everything that `count` bodies hold, as a gateway would read it. */
function send(bodies: LoadBodies, count: number): Sent[] {
  return Array.from({ length: count }, (_, n) => {
    const body = bodies.take(NOW + n * 1_000);
    const [head = "", text = ""] = body.bytes.toString("utf8").split("\r\n\r\n");
    expect(head).toBe(`content-length: ${text.length}`);
    const events = JSON.parse(text) as Sent[];
    expect(events).toHaveLength(body.events);
    body.release();
    return events;
  }).flat();
}

test("over several passes every identity is new, repeats equal what they repeat, and the sums are those of what was sent", () => {
  const bodies = new LoadBodies({ seed: 3, bodies: 8, eventsPerBody: 50, nowAt: NOW, headOf });
  const sent = send(bodies, 27);
  const first = new Map<string, string>();
  for (const event of sent) {
    const text = JSON.stringify(event);
    expect(first.get(event.id) ?? text).toBe(text);
    first.set(event.id, text);
  }
  const distinct = [...first.values()].map((text) => JSON.parse(text) as Sent);
  const tokensOf = (events: readonly Sent[]): number => events.reduce((sum, { data }) => sum + data.inputTokens, 0);
  const late = distinct.filter(({ subject }) => subject.startsWith("cus_late_"));
  expect(bodies.taken).toEqual({
    events: sent.length,
    identities: distinct.length,
    inputTokens: tokensOf(distinct),
    lateInputTokens: tokensOf(late),
  });
  expect(distinct.length).toBeLessThan(sent.length);
  expect(late.length).toBeGreaterThan(0);
  const hourAt = Math.floor(NOW / 3_600_000) * 3_600_000;
  for (const { subject, time } of distinct)
    expect(Date.parse(time) < hourAt, `${subject} ${time}`).toBe(subject.startsWith("cus_late_"));
});

test("a body that is still out is not taken again", () => {
  const bodies = new LoadBodies({ seed: 3, bodies: 2, eventsPerBody: 5, nowAt: NOW, headOf });
  const held = bodies.take(NOW);
  bodies.take(NOW).release();
  expect(() => bodies.take(NOW)).toThrow("more bodies are out than there are");
  held.release();
});
