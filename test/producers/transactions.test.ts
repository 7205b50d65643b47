/** A transactional neighbour: what it commits counts, what it aborts never happened, and no offset is left without a fate. */
import { partitionOfKey } from "@tallyhouse/domain";
import kafkajs, { type Producer } from "kafkajs";
import { afterAll, beforeAll, expect, it } from "vitest";
import { keyOf, recordOf, type Usage, usagesOf } from "./usage.ts";
import { countsOf, recount, startWorld, type World } from "./world.ts";

const ROUNDS = 12;
const RECORDS = 15;

let world: World;
const closing: (() => Promise<unknown>)[] = [];
beforeAll(async () => {
  world = await startWorld();
}, 120_000);
afterAll(async () => {
  for (const close of closing.reverse()) await close();
  await world.stop();
});

async function openProducer(transactionalId?: string): Promise<Producer> {
  const transactional =
    transactionalId === undefined ? {} : { transactionalId, idempotent: true, maxInFlightRequests: 1 };
  const createPartitioner = kafkajs.Partitioners.DefaultPartitioner;
  const producer = world.kafka.producer({ createPartitioner, ...transactional });
  await producer.connect();
  closing.push(() => producer.disconnect());
  return producer;
}

it("G1 G2 committed records count once, aborted ones not at all, however two transactions interleave", async () => {
  const { topic } = world;
  const [a, b, plain] = await Promise.all([openProducer(`${topic}.a`), openProducer(`${topic}.b`), openProducer()]);
  const produced: Usage[] = [];
  let aborted = 0;
  let markers = 0;
  const batchOf = (customer: string, round: number): Usage[] => usagesOf(customer, RECORDS, `round/${round}`);
  const send = (producer: Pick<Producer, "send">, usages: readonly Usage[]): Promise<unknown> =>
    producer.send({ topic, acks: -1, messages: usages.map(recordOf) });

  for (let round = 0; round < ROUNDS; round += 1) {
    const transactions = [
      { usages: batchOf("a", round), open: await a.transaction(), isCommitted: round % 2 === 0 },
      { usages: batchOf("b", round), open: await b.transaction(), isCommitted: round % 3 === 0 },
    ];
    for (const half of [0, 1]) {
      for (const { open, usages } of transactions)
        await send(
          open,
          usages.filter((_, n) => n % 2 === half),
        );
      await send(plain, batchOf(`plain-${half}`, round));
      produced.push(...batchOf(`plain-${half}`, round));
    }
    for (const { open, usages, isCommitted } of transactions) {
      if (isCommitted) produced.push(...usages);
      else aborted += usages.length;
      await (isCommitted ? open.commit() : open.abort());
      const { partitionCount } = world.standalone.ports.log;
      markers += new Set(usages.map((usage) => partitionOfKey(Buffer.from(keyOf(usage)), partitionCount))).size;
    }
  }
  // What was aborted may be sent again: it never happened.
  await send(plain, batchOf("a", 1));
  produced.push(...batchOf("a", 1));

  const fates = await world.fates();
  expect(countsOf(fates)).toEqual({ counted: produced.length, "control marker": aborted + markers });
  expect(await world.totals()).toEqual(recount(produced));
}, 180_000);
