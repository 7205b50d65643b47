/** Whatever stands in the topic, each record has its fate, and its neighbours do not notice. */
import { encodeControl, partitionOfKey } from "@tallyhouse/domain";
import kafkajs, { type Message, type Producer } from "kafkajs";
import { afterAll, beforeAll, expect, it } from "vitest";
import { ODD_RECORDS, type OddRecord } from "./odd-records.ts";
import { cloudEvent, keyOf, recordOf, type Usage, usagesOf } from "./usage.ts";
import { type Fate, recount, startWorld, type World } from "./world.ts";

const NEIGHBOURS = 200;

let world: World;
let producer: Producer;
beforeAll(async () => {
  world = await startWorld();
  producer = world.kafka.producer({ createPartitioner: kafkajs.Partitioners.DefaultPartitioner });
  await producer.connect();
}, 120_000);
afterAll(async () => {
  await producer.disconnect();
  await world.stop();
});

/** Sends one record and returns its place, `partition:offset`, as the broker's acknowledgement names it. */
async function sendTo(partition: number, message: Omit<Message, "partition">): Promise<string> {
  const { topic } = world;
  const compression = kafkajs.CompressionTypes.GZIP;
  const [answer] = await producer.send({ topic, acks: -1, compression, messages: [{ ...message, partition }] });
  return `${partition}:${answer?.baseOffset}`;
}

function partitionOf(usage: Usage, mode = "live"): number {
  return partitionOfKey(Buffer.from(keyOf(usage, mode)), world.standalone.ports.log.partitionCount);
}

function wrongPartitionOf(usage: Usage): number {
  return (partitionOf(usage) + 1) % world.standalone.ports.log.partitionCount;
}

function sendOdd({ usage, value, headers = {} }: OddRecord, isMisplaced: boolean): Promise<string> {
  const partition = usage === undefined ? 0 : isMisplaced ? wrongPartitionOf(usage) : partitionOf(usage);
  return sendTo(partition, { key: null, value, headers });
}

function fateAt(fates: readonly Fate[], place: string): string {
  const fate = fates.find((each) => each.place === place);
  return fate === undefined ? "none" : `${fate.status} ${fate.reason}`.trim();
}

it("G1 G2 each has the fate that the documents promise, and valid neighbours count", { timeout: 180_000 }, async () => {
  const neighbours = usagesOf("neighbour", NEIGHBOURS);
  const places = new Map<string, string>();
  for (const [n, odd] of ODD_RECORDS.entries()) {
    await producer.send({
      topic: world.topic,
      messages: neighbours.filter((_, i) => i % ODD_RECORDS.length === n).map(recordOf),
    });
    places.set(odd.name, await sendOdd(odd, false));
  }
  const fates = await world.fates();
  const found = ODD_RECORDS.map(({ name }) => [name, fateAt(fates, places.get(name) ?? "")]);
  expect(Object.fromEntries(found)).toEqual(Object.fromEntries(ODD_RECORDS.map(({ name, fate }) => [name, fate])));
  expect(await world.totals()).toMatchObject(recount(neighbours));

  // All of them again, in wrong partitions: what is an event is redirected, and is a duplicate where it counted.
  const again = new Map<string, string>();
  for (const odd of ODD_RECORDS) again.set(odd.name, await sendOdd(odd, true));
  const totals = await world.totals();
  const later = await world.fates();
  const wanted = ODD_RECORDS.map(({ name, fate, usage }) => [
    name,
    usage !== undefined && /^(?:counted|too_|invalid METER)/.test(fate) ? "redirected" : fate,
  ]);
  expect(ODD_RECORDS.map(({ name }) => [name, fateAt(later, again.get(name) ?? "")])).toEqual(wanted);
  expect(await world.totals()).toEqual(totals);
  expect(later.filter(({ status }) => status === "conflict")).toEqual([]);
});

it("G2 structured and binary copies of one usage, with and without a key, count once", async () => {
  const usages = usagesOf("twice", 40);
  const headersOf = (usage: Usage): Record<string, string> => {
    const { data: _, ...attributes } = cloudEvent(usage);
    return Object.fromEntries(Object.entries(attributes).map(([name, value]) => [`ce_${name}`, String(value)]));
  };
  const { topic } = world;
  await producer.send({ topic, messages: usages.map((usage) => ({ ...recordOf(usage), key: null })) });
  await producer.send({
    topic,
    messages: usages.map((usage) => ({
      key: keyOf(usage),
      value: JSON.stringify(cloudEvent(usage)["data"]),
      headers: headersOf(usage),
    })),
  });
  await world.fates();
  expect(await world.totals()).toMatchObject(recount(usages));
});

it("G3 without time the append time of the first record counts, in the wrong partition too", async () => {
  const [placed, misplaced] = usagesOf("timeless", 2);
  if (placed === undefined || misplaced === undefined) throw new Error("two usages");
  const valueOf = (usage: Usage): string => JSON.stringify(cloudEvent(usage, { time: undefined }));
  await sendTo(partitionOf(placed), { value: valueOf(placed) });
  await sendTo(wrongPartitionOf(misplaced), { value: valueOf(misplaced) });
  const fates = (await world.fates()).filter(({ customer }) => customer === "timeless");
  const countedOf = (usage: Usage): Fate | undefined =>
    fates.find(({ id, status }) => id === usage.id && status === "counted");
  const redirected = fates.find(({ status }) => status === "redirected");
  expect(countedOf(placed)?.occurredAt).toBe(countedOf(placed)?.receivedAt);
  expect(countedOf(misplaced)?.occurredAt).toBe(redirected?.receivedAt);
});

it("keeps usage of mode test apart", async () => {
  const [usage] = usagesOf("tester", 1);
  if (usage === undefined) throw new Error("one usage");
  await sendTo(partitionOf(usage, "test"), { value: JSON.stringify(cloudEvent(usage, { mode: "test" })) });
  const fates = (await world.fates()).filter(({ customer }) => customer === "tester");
  expect(fates.map(({ mode, status }) => [mode, status])).toEqual([["test", "counted"]]);
  expect(Object.keys(await world.totals()).filter((name) => name.startsWith("tester"))).toEqual([]);
});

it("refuses a control record that was signed for another partition", async () => {
  const [key] = world.standalone.ports.secrets.controlKeys;
  const { value, headers } = encodeControl({ fact: { kind: "tick" }, partition: 1, key });
  const place = await sendTo(0, { value, headers: { ...headers } });
  expect(fateAt(await world.fates(), place)).toBe("invalid CONTROL_RECORD_INVALID");
});

it("a record over the topic's max.message.bytes is refused to its producer and leaves nothing behind", async () => {
  const [usage] = usagesOf("huge", 1);
  if (usage === undefined) throw new Error("one usage");
  // Random digits, which no codec packs below the broker's limit of 1 MiB.
  const noise = Array.from({ length: 1_200_000 }, (_, n) =>
    String.fromCodePoint(33 + ((n * n * 31 + n * 17) % 90)),
  ).join("");
  const value = JSON.stringify(cloudEvent(usage, { data: { noise } }));
  const messages = [{ key: keyOf(usage), value }];
  await expect(producer.send({ topic: world.topic, acks: -1, messages })).rejects.toMatchObject({
    type: "MESSAGE_TOO_LARGE",
  });
  expect((await world.fates()).filter(({ customer }) => customer === "huge")).toEqual([]);
});
