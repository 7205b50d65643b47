import {
  type ControlFact,
  encodeUsageEvent,
  partitionOfEvent,
  recordKeyOf,
  type StreamIdentity,
} from "@tallyhouse/domain";
import { MemoryLog, meterVersion, usageEvent } from "@tallyhouse/testkit";
import { describe, expect, test } from "vitest";
import type { PredecessorStore } from "./predecessors.ts";
import { driveToEnd } from "./testing/drive.ts";
import { Fault, mortal } from "./testing/faults.ts";
import { ModelStore } from "./testing/model-store.ts";
import { activation, aggregatorOn, controlRecord, HOUR_MS, ManualClock, NOON, STREAM } from "./testing/scenario.ts";

const EVENTS = 24;
const clock = new ManualClock();
clock.at = NOON + 24 * HOUR_MS;

/** One incarnation of the topic, its log and its store. Totals are of all streams together. */
class Incarnation {
  stream: StreamIdentity;
  readonly log: MemoryLog;
  readonly store = new ModelStore();
  readonly predecessors: readonly PredecessorStore[];
  receivedAt = NOON;

  constructor(streamId: number, partitionCount: number, predecessors: readonly PredecessorStore[] = []) {
    this.stream = { ...STREAM, streamId, partitionCount, predecessors };
    this.log = new MemoryLog({ partitionCount, clock, isManual: true });
    this.predecessors = predecessors;
  }

  send(from: number, to: number): this {
    for (let n = from; n < to; n += 1) {
      const event = usageEvent({ id: `evt-${n}`, occurredAt: NOON, data: { inputTokens: 1 } });
      const partition = partitionOfEvent(event, this.stream.partitionCount);
      const record = { partition, key: recordKeyOf(event), value: encodeUsageEvent(event, {}), headers: {} };
      this.log.appendAt(this.receivedAt, record);
    }
    return this;
  }

  control(fact: ControlFact): this {
    for (let partition = 0; partition < this.stream.partitionCount; partition += 1)
      this.log.appendAt(this.receivedAt, controlRecord(fact, partition));
    return this;
  }

  async fold(): Promise<this> {
    await driveToEnd(this.start(), this.log);
    return this;
  }

  start(ports: Pick<Incarnation, "store" | "log"> | ReturnType<typeof mortal> = this) {
    const { predecessors, stream } = this;
    return aggregatorOn({ store: ports.store, log: ports.log, clock, predecessors }, { stream });
  }

  asPredecessor(isLost = false): PredecessorStore {
    const { streamId, partitionCount } = this.stream;
    return { streamId, partitionCount, isLost, store: this.store };
  }

  statuses(): Record<string, number> {
    const counts: Record<string, number> = {};
    for (const { status } of this.store.rows("raw_events")) counts[status] = (counts[status] ?? 0) + 1;
    return counts;
  }

  /** Usage events in the totals of the meter. */
  total(meter = "input_tokens"): number {
    const rows = this.store.newestRollups().filter((row) => row.meter === meter);
    return rows.reduce((sum, row) => sum + row.counted - row.voided, 0);
  }
}

const close: ControlFact = { kind: "stream.close" };
const ended = meterVersion({ meter: "ended" });

/** A stream of two partitions that counted, with a meter that ended. */
function firstStream(): Incarnation {
  const first = new Incarnation(7, 2).control(activation()).control(activation(ended)).send(0, EVENTS);
  return first.control({ kind: "meter.end", mode: "live", meter: "ended", version: 1, until: "2026-11-20T12:06:00Z" });
}

function mustBeKilled(error: unknown): void {
  expect(String(error)).toContain("killed at call");
}

async function haltOf(incarnation: Incarnation): Promise<{ code: string; message: string }> {
  const error = await incarnation.fold().then(
    () => null,
    (thrown: unknown) => thrown,
  );
  expect(error).toMatchObject({ action: "halt" });
  return error as { code: string; message: string };
}

describe("a closed stream goes on in one of more partitions", () => {
  test("G2 what was counted returns as duplicate, its meters count on, and an end stays an end", async () => {
    const first = await firstStream()
      .control(close)
      .send(EVENTS, EVENTS + 4)
      .fold();
    expect(first.total()).toBe(EVENTS);
    const second = new Incarnation(8, 4, [first.asPredecessor()]).send(0, EVENTS + 10);
    second.receivedAt = NOON + HOUR_MS;
    const late = usageEvent({ id: "late", occurredAt: NOON + HOUR_MS, data: { inputTokens: 1 } });
    const partition = partitionOfEvent(late, 4);
    second.log.appendAt(NOON + HOUR_MS, { partition, key: null, value: encodeUsageEvent(late, {}), headers: {} });
    await second.fold();
    expect(second.statuses()).toEqual({ duplicate: EVENTS, counted: 11 });
    // What came behind the close counts when it is sent again.
    expect(second.total()).toBe(11);
    expect(second.total("ended"), "usage before the end").toBe(10);
    // A restart finds the same again.
    await second.send(0, EVENTS + 10).fold();
    expect(second.statuses()).toEqual({ duplicate: 2 * EVENTS + 10, counted: 11 });
  });

  test("G2 one with another hash seed halts: it would not recognise what its predecessor counted", async () => {
    const first = await firstStream().control(close).fold();
    const second = new Incarnation(8, 4, [first.asPredecessor()]).send(0, EVENTS);
    second.stream = { ...second.stream, hashSeed: Buffer.from("fedcba9876543210") };
    expect(await haltOf(second)).toMatchObject({ code: "STREAM_MISMATCH" });
  });

  test("G2 a chain of streams: identities and meters of all of them", async () => {
    const first = await firstStream().control(close).fold();
    const second = new Incarnation(8, 2, [first.asPredecessor()]).send(EVENTS, EVENTS + 5);
    await second.control({ ...close, stream: 8 }).fold();
    const third = await new Incarnation(9, 4, [first.asPredecessor(), second.asPredecessor()])
      .send(0, EVENTS + 8)
      .fold();
    expect(third.statuses()).toEqual({ duplicate: EVENTS + 5, counted: 3 });
    expect(first.total() + second.total() + third.total()).toBe(EVENTS + 8);
  });

  test("G4 its clock goes on from the close: nothing is booked in a window that may be sealed", async () => {
    const first = firstStream();
    first.receivedAt = NOON + 3 * HOUR_MS;
    await first.control(close).fold();
    const second = await new Incarnation(8, 4, [first.asPredecessor()]).send(EVENTS, EVENTS + 8).fold();
    const booked = second.store.rows("raw_events").map(({ bookedAt }) => bookedAt);
    expect(new Set(booked)).toEqual(new Set([NOON + 3 * HOUR_MS]));
  });

  test("G1 a predecessor that is not closed, or whose close is not folded, halts", async () => {
    const first = await firstStream().fold();
    first.control(close);
    const second = new Incarnation(8, 4, [first.asPredecessor()]).send(0, 1);
    const { code, message } = await haltOf(second);
    expect(code).toBe("STREAM_MISMATCH");
    expect(message).toContain("7:2:lost in STREAM_PREDECESSORS");
    await first.fold();
    await second.fold();
    expect(second.statuses()).toEqual({ duplicate: 1 });
  });

  test.each([
    ["a count that is no multiple", 3, 8],
    ["its own number", 4, 7],
  ])("%s is refused", async (_what, partitionCount, streamId) => {
    const first = await firstStream().control(close).fold();
    const second = new Incarnation(streamId, partitionCount, [first.asPredecessor()]);
    await expect(second.start().run(new AbortController().signal)).rejects.toMatchObject({ code: "CONFIG_INVALID" });
  });
});

describe("a topic that was lost goes on in a new stream", () => {
  /** A stream that counted, took one usage event back, and whose topic was copied before it was lost: what the copy holds. */
  async function lostStream(): Promise<{ first: Incarnation; readonly copyInto: (next: Incarnation) => Incarnation }> {
    const first = firstStream();
    await first.fold();
    for (const partition of [0, 1]) {
      const offset = first.log.entries(partition).findIndex(({ key }) => key !== null);
      const event = String(first.log.entries(partition)[offset]?.value);
      first.log.appendAt(NOON, controlRecord({ kind: "void", offset, event }, partition));
    }
    await first.fold();
    expect(first.total()).toBe(EVENTS - 2);
    const copyInto = (next: Incarnation): Incarnation => {
      for (const partition of [0, 1])
        for (const { receivedAt, key, value, headers } of first.log.entries(partition))
          next.log.appendAt(receivedAt, { partition, key, value, headers });
      return next;
    };
    return { first, copyInto };
  }

  test("G1 G2 read again from its beginning: nothing counts twice, nothing is taken back twice, and what is new counts", async () => {
    const { first, copyInto } = await lostStream();
    const second = copyInto(new Incarnation(8, 2, [first.asPredecessor(true)])).send(EVENTS, EVENTS + 6);
    await second.fold();
    expect(second.statuses()).toMatchObject({ duplicate: EVENTS, counted: 6, invalid: 2 });
    expect(first.total() + second.total()).toBe(EVENTS - 2 + 6);
  });

  test("G1 G2 a kill at any port call of its first start changes nothing", async () => {
    const { first, copyInto } = await lostStream();
    const calls = new Fault(Number.POSITIVE_INFINITY, "before");
    const whole = copyInto(new Incarnation(8, 2, [first.asPredecessor(true)])).send(EVENTS, EVENTS + 6);
    await driveToEnd(whole.start(mortal(whole, calls)), whole.log);
    for (let n = 1; n <= calls.calls.length; n += 1) {
      for (const mode of ["half", "after"] as const) {
        const second = copyInto(new Incarnation(8, 2, [first.asPredecessor(true)])).send(EVENTS, EVENTS + 6);
        const fault = new Fault(n, mode);
        await driveToEnd(second.start(mortal(second, fault)), second.log).catch(mustBeKilled);
        expect(fault.isHit, `call ${n}`).toBe(true);
        await second.fold();
        expect(second.statuses()).toMatchObject({ duplicate: EVENTS, counted: 6, invalid: 2 });
        expect(second.total()).toBe(6);
      }
    }
  });

  test("G1 starts at the earliest record that is left, and never behind where it once started", async () => {
    const { first, copyInto } = await lostStream();
    const second = copyInto(new Incarnation(8, 2, [first.asPredecessor(true)]));
    for (const partition of [0, 1]) second.log.deleteBefore(partition, 3);
    const fault = new Fault(3, "before");
    await driveToEnd(second.start(mortal(second, fault)), second.log).catch(mustBeKilled);
    await second.fold();
    const offsets = second.store.rows("raw_events").map(({ logOffset }) => logOffset);
    expect(Math.min(...offsets)).toBe(3);
    const third = copyInto(new Incarnation(9, 2, [first.asPredecessor(true)]));
    for (const partition of [0, 1]) third.log.deleteBefore(partition, 3);
    const opened = third.start();
    await third.log.subscribe(opened.partitions);
    while (third.store.progress.length < 2) await new Promise((resolve) => setImmediate(resolve));
    for (const partition of [0, 1]) third.log.deleteBefore(partition, 4);
    expect((await haltOf(third)).code).toBe("LOG_GAP");
  });

  test("G1 rows beyond the lost stream's progress halt: a cut flush can no more be finished", async () => {
    const first = firstStream();
    await driveToEnd(first.start(mortal(first, new Fault(16, "before"))), first.log).catch(mustBeKilled);
    const beyond = first.store
      .rows("raw_events")
      .some((row) => row.logOffset >= Math.max(0, ...first.store.progress.map(({ nextOffset }) => nextOffset)));
    expect(beyond, "the kill cut a flush").toBe(true);
    const second = new Incarnation(8, 2, [first.asPredecessor(true)]).send(0, EVENTS);
    const { code, message } = await haltOf(second);
    expect(code).toBe("STREAM_MISMATCH");
    expect(message).toContain("its last flush was cut");
  });
});
