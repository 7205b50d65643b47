import { cpSync, mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Engine, openEngine } from "./engine.ts";
import type { RequestCommand } from "./fold.ts";
import { encodeRecord, readRecords } from "./record-file.ts";
import type { IdentifierMemory } from "./state.ts";
import { truthJson } from "./truth.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "emulator-engine-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

interface Opened {
  readonly seed?: string;
  readonly journalBytesMin?: number;
  readonly identifierMemory?: IdentifierMemory;
  readonly dataFolder?: string | undefined;
}

function open(options: Opened = {}): Promise<Engine> {
  return openEngine({ dataFolder: folder, identifierMemory: "24h", ...options });
}

/** The bytes of the truth, and what is remembered of idempotency keys. */
function bytesOf({ state }: Engine): string {
  const results = [...state.modes.test.idempotency.values(), ...state.modes.live.idempotency.values()];
  return [...truthJson(state), JSON.stringify(results)].join("");
}

function command(operation: string, parameters: object, rest: Partial<RequestCommand> = {}): RequestCommand {
  return {
    kind: "request",
    at: 1_800_000_000_000,
    mode: "test",
    operation,
    id: "",
    parameters: parameters as RequestCommand["parameters"],
    ...rest,
  };
}

/** A mixed run: both modes, every kind of write, refusals and duplicates among them. Deterministic by `steps`. */
function run(engine: Engine, steps: readonly number[]): void {
  const ids = { customers: ["cus_none"], meters: ["mtr_none"] };
  for (const [turn, step] of steps.entries()) {
    const mode = step % 5 === 0 ? "live" : "test";
    const at = 1_800_000_000_000 + turn * 3_600_000;
    const rest = { mode, at, idempotency: { key: `key-${step % 40}`, fingerprint: "f" } } as const;
    const customer = ids.customers[step % ids.customers.length] ?? "";
    const meter = ids.meters[step % ids.meters.length] ?? "";
    const execute = (operation: string, parameters: object, id = "") =>
      engine.execute(command(operation, parameters, { ...rest, id })).body as { id: string };
    switch (step % 8) {
      case 0:
        ids.customers.push(execute("POST /v1/customers", { name: `n${step}`, metadata: { __proto__: "x" } }).id);
        break;
      case 1:
        ids.meters.push(
          execute("POST /v1/billing/meters", {
            display_name: "d",
            event_name: `e${step % 3}`,
            default_aggregation: { formula: "sum" },
          }).id,
        );
        break;
      case 2:
        execute("POST /v1/customers/{id}", { description: "x" }, customer);
        break;
      case 3:
        execute("POST /v1/billing/meters/{id}/deactivate", {}, meter);
        break;
      case 4:
        if (step % 3 === 0) execute("DELETE /v1/customers/{id}", {}, customer);
        break;
      default:
        execute("POST /v1/billing/meter_events", {
          event_name: `e${step % 3}`,
          payload: { stripe_customer_id: customer, value: `${step}.5` },
          ...(step % 2 === 0 ? { identifier: `i${step % 50}` } : {}),
        });
    }
  }
}

const steps = fc.array(fc.nat({ max: 1_000 }), { minLength: 1, maxLength: 120 });

describe("the engine", () => {
  it("with one seed and the same commands has the same bytes: in memory, on disk, and after a restart", async () => {
    await fc.assert(
      fc.asyncProperty(steps, async (turns) => {
        rmSync(folder, { recursive: true, force: true });
        const inMemory = await open({ seed: "s", dataFolder: undefined });
        run(inMemory, turns);
        const onDisk = await open({ seed: "s" });
        run(onDisk, turns);
        await onDisk.durable();
        const expected = bytesOf(inMemory);
        expect(bytesOf(onDisk)).toBe(expected);
        await onDisk.close();
        const restarted = await open();
        expect(bytesOf(restarted)).toBe(expected);
        expect(restarted.state.seq).toBe(inMemory.state.seq);
        await restarted.close();
      }),
      { numRuns: 25 },
    );
  });

  it("with another seed gives other ids", async () => {
    const create = async (seed: string) => {
      const engine = await open({ seed, dataFolder: undefined });
      return (engine.execute(command("POST /v1/customers", {})).body as { id: string }).id;
    };
    expect(await create("a")).toBe(await create("a"));
    expect(await create("a")).not.toBe(await create("b"));
  });

  it("restores the same bytes from a snapshot and the journal after it", async () => {
    await fc.assert(
      fc.asyncProperty(steps, steps, async (first, second) => {
        rmSync(folder, { recursive: true, force: true });
        const reference = await open({ seed: "s", dataFolder: undefined });
        run(reference, first);
        run(reference, second);
        const engine = await open({ seed: "s", journalBytesMin: 1 });
        run(engine, first);
        await engine.durable();
        await engine.close();
        expect(statSync(join(folder, "snapshot.ndjson")).size).toBeGreaterThan(0);
        const next = await open({ journalBytesMin: 1 << 30 });
        run(next, second);
        await next.durable();
        await next.close();
        const last = await open();
        expect(bytesOf(last)).toBe(bytesOf(reference));
        await last.close();
      }),
      { numRuns: 15 },
    );
  });

  it("skips journal records that the snapshot holds already: a crash before the journal was emptied", async () => {
    const engine = await open({ seed: "s" });
    run(engine, [0, 8, 16, 1, 5, 6, 7]);
    await engine.close();
    const journal = readFileSync(join(folder, "journal.ndjson"));
    const before = bytesOf(engine);
    const snapshotting = await open({ journalBytesMin: 1 });
    snapshotting.execute(command("POST /v1/customers", { name: "last" }));
    await snapshotting.close();
    const after = bytesOf(snapshotting);
    expect(after).not.toBe(before);
    writeFileSync(join(folder, "journal.ndjson"), journal);
    const restarted = await open();
    expect(bytesOf(restarted)).toBe(after);
    await restarted.close();
  });

  it("is a prefix of the commands after a crash anywhere in the journal", async () => {
    const engine = await open({ seed: "s" });
    const prefixes = new Map<number, string>([[engine.state.seq, bytesOf(engine)]]);
    for (const step of [0, 1, 6, 14, 3, 22]) {
      run(engine, [step]);
      prefixes.set(engine.state.seq, bytesOf(engine));
    }
    await engine.durable();
    await engine.close();
    const path = join(folder, "journal.ndjson");
    const { size } = statSync(path);
    const seen = new Set<number>();
    for (let length = readFileSync(path).indexOf("\n") + 1; length <= size; length += 23) {
      const copy = `${folder}-copy`;
      cpSync(folder, copy, { recursive: true });
      truncateSync(join(copy, "journal.ndjson"), length);
      const restarted = await open({ dataFolder: copy });
      expect(bytesOf(restarted)).toBe(prefixes.get(restarted.state.seq));
      seen.add(restarted.state.seq);
      await restarted.close();
      rmSync(copy, { recursive: true });
    }
    expect([...seen]).toEqual([...prefixes.keys()].filter((seq) => seen.has(seq)));
    expect(seen.size).toBeGreaterThanOrEqual(prefixes.size - 1); // the last byte may fall between two steps
  });

  it("keeps its seed, and refuses another one by name", async () => {
    const first = await open();
    const { seed } = first.state;
    expect(seed).not.toBe("");
    await first.close();
    await expect(open({ seed: "other" })).rejects.toThrow(`was started with seed ${seed}, not other`);
    const again = await open({ seed });
    expect(again.state.seed).toBe(seed);
    await again.close();
  });

  it("replays each event under the identifier memory of its time", async () => {
    const first = await open({ identifierMemory: "24h" });
    const setUp = first.execute(command("POST /v1/customers", {})).body as { id: string };
    first.execute(
      command("POST /v1/billing/meters", {
        display_name: "d",
        event_name: "e",
        default_aggregation: { formula: "sum" },
      }),
    );
    const event = (at: number) =>
      command(
        "POST /v1/billing/meter_events",
        { event_name: "e", payload: { stripe_customer_id: setUp.id, value: "1" }, identifier: "i" },
        { at },
      );
    const start = 1_800_000_000_000;
    const days = (count: number) => start + count * 86_400_000 + count;
    expect(first.execute(event(start)).status).toBe(200);
    expect(first.execute(event(days(1))).status).toBe(200);
    await first.close();
    const second = await open({ identifierMemory: "forever" });
    expect(second.execute(event(days(3))).status).toBe(400);
    await second.close();
    const third = await open({ identifierMemory: "24h" });
    expect(third.execute(event(days(5))).status).toBe(200);
    await third.close();
    const last = await open();
    expect(bytesOf(last)).toBe(bytesOf(third));
    await last.close();
  });

  it("refuses a folder that is open, and takes it once it is closed", async () => {
    const engine = await open();
    await expect(open()).rejects.toThrow(`another emulator has the data folder ${folder} open`);
    await engine.close();
    await (await open()).close();
  });

  it("refuses a journal with a gap", async () => {
    const engine = await open({ seed: "s" });
    run(engine, [0, 8]);
    await engine.close();
    const path = join(folder, "journal.ndjson");
    const lines = readFileSync(path, "utf8").split("\n");
    writeFileSync(path, [lines[0], lines[2], ""].join("\n"));
    await expect(open()).rejects.toThrow("the journal goes from command 1 to 3");
  });

  it("refuses a journal whose replay gives another status than it gave then", async () => {
    const engine = await open({ seed: "s" });
    run(engine, [0]);
    await engine.close();
    const path = join(folder, "journal.ndjson");
    const records: object[] = [];
    readRecords(path, (record) => records.push(record as object));
    writeFileSync(path, [records[0], { ...records[1], status: 404 }].map((record) => encodeRecord(record)).join(""));
    await expect(open()).rejects.toThrow("command 2 gave 404, on replay 200");
  });

  it("refuses a damaged snapshot", async () => {
    const engine = await open({ journalBytesMin: 1 });
    run(engine, [0]);
    await engine.close();
    const path = join(folder, "snapshot.ndjson");
    truncateSync(path, statSync(path).size - 5);
    await expect(open()).rejects.toThrow("is damaged");
  });

  it("stops for good after an internal error: half a change must not be built upon", async () => {
    const engine = await open();
    expect(() => engine.execute(command("POST /v1/none", {}))).toThrow("restart it");
    expect(() => engine.execute(command("POST /v1/customers", {}))).toThrow("restart it");
    await expect(engine.durable()).rejects.toThrow("restart it");
    await engine.close();
  });
});
