import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { type KafkaLogOptions, openKafkaLog } from "@tallyhouse/eventlog";
import { LogCollector, numberedRecords, until } from "@tallyhouse/testkit";
import { type Admin, Kafka } from "kafkajs";
import { afterEach, beforeEach, expect, it } from "vitest";
import { freshLogOptions, kafkaBrokers, openKafkaUnderTest } from "./kafka-support.ts";

const brokers = kafkaBrokers();
const PARTITION_COUNT = 4;
const PARTITIONS = Array.from({ length: PARTITION_COUNT }, (_, partition) => partition);
/** Longer than any test here may take: whatever needs the end of a session fails by its own time limit. */
const SESSION_TIMEOUT_MS = 300_000;
const TEST_TIMEOUT_MS = 60_000;

let admin: Admin;
const closing: (() => Promise<unknown>)[] = [];

beforeEach(async () => {
  admin = new Kafka({ brokers, clientId: "onlooker", logLevel: 0 }).admin();
  await admin.connect();
});

afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
  await admin.disconnect();
});

/** Makes a topic; members of one group on it are to be opened with these options and an instance. */
async function freshGroup(): Promise<KafkaLogOptions> {
  const options = freshLogOptions(brokers, PARTITION_COUNT);
  const under = await openKafkaUnderTest(options);
  closing.push(() => under.dispose());
  return { ...options, ownership: "group", sessionTimeoutMs: SESSION_TIMEOUT_MS };
}

async function openMember(options: KafkaLogOptions): Promise<LogCollector> {
  const opened = await openKafkaLog(options);
  closing.push(() => opened.close());
  const collector = new LogCollector();
  await collector.subscribeTo(opened);
  for (const partition of PARTITIONS) collector.seek(partition, 0);
  return collector;
}

const owned = (collector: LogCollector): number => collector.assignments.at(-1)?.length ?? 0;

/** Client id by member id. */
async function membersOf({ groupId }: KafkaLogOptions): Promise<Record<string, string>> {
  const { groups } = await admin.describeGroups([groupId]);
  return Object.fromEntries(
    groups.flatMap(({ members }) => members.map((each) => [each.memberId, each.clientId] as const)),
  );
}

/** A member in a process of its own; resolves when it shares the partitions with one other. */
async function startVictim(options: KafkaLogOptions): Promise<ChildProcess> {
  const program = join(import.meta.dirname, "consume-until-killed.fixture.ts");
  const child = spawn(process.execPath, [program, JSON.stringify(options)], { stdio: ["ignore", "pipe", "inherit"] });
  closing.push(async () => child.kill("SIGKILL"));
  for await (const line of createInterface({ input: child.stdout })) {
    if ((JSON.parse(line) as number[]).length === PARTITION_COUNT / 2) return child;
  }
  throw new Error("the victim ended before it shared the partitions");
}

it(
  "G9 whoever was killed gets its partitions back without waiting for the dead session, and nobody else is dismissed",
  async () => {
    const options = await freshGroup();
    const survivor = await openMember({ ...options, instance: "survivor" });
    const victim = await startVictim({ ...options, instance: "victim" });
    await survivor.until(() => owned(survivor) === PARTITION_COUNT / 2);
    const before = await membersOf(options);
    const exited = once(victim, "exit");
    victim.kill("SIGKILL");
    await exited;

    const again = await openKafkaLog({ ...options, instance: "victim" });
    closing.push(() => again.close());
    await again.log.append(PARTITIONS.flatMap((partition) => numberedRecords(partition, 3)));
    const successor = new LogCollector();
    await successor.subscribeTo(again);
    for (const partition of PARTITIONS) successor.seek(partition, 0);
    await survivor.until(() => owned(survivor) === PARTITION_COUNT / 2);
    const held = [successor, survivor].flatMap((each) =>
      (each.assignments.at(-1) ?? []).map((partition) => ({ each, partition })),
    );
    expect(new Set(held.map(({ partition }) => partition))).toEqual(new Set(PARTITIONS));
    for (const { each, partition } of held) await each.untilOffset(partition, 3);

    const after = await membersOf(options);
    expect(Object.values(after).sort()).toEqual(["test.survivor", "test.victim"]);
    const [memberId = ""] = Object.entries(before).find(([, clientId]) => clientId === "test.survivor") ?? [];
    expect(after[memberId]).toBe("test.survivor");
  },
  TEST_TIMEOUT_MS,
);

it(
  "G9 a living member that another of its name dismisses joins again: both share the partitions",
  async () => {
    const options = { ...(await freshGroup()), instance: "same" };
    const first = await openMember(options);
    const [dismissed] = Object.keys(await membersOf(options));
    const second = await openMember(options);
    await until(async () => Object.keys(await membersOf(options)).length === 2, { timeoutMs: TEST_TIMEOUT_MS });
    await first.until(() => owned(first) === PARTITION_COUNT / 2);
    await second.until(() => owned(second) === PARTITION_COUNT / 2);
    expect(await membersOf(options)).not.toHaveProperty(String(dismissed));
    const held = [first, second].flatMap((each) => each.assignments.at(-1) ?? []);
    expect(new Set(held)).toEqual(new Set(PARTITIONS));
  },
  TEST_TIMEOUT_MS,
);
