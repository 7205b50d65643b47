/** The proxy does to a request what it says, and nothing to the others. */
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import { freePort } from "@tallyhouse/infra/local/free-port.ts";
import { afterEach, beforeEach, expect, test } from "vitest";
import { InsertProxy, type Trap, type Verdict } from "./insert-proxy.ts";
import type { Stage } from "./plan.ts";

const ROWS = "1,2,3,4,5,6";
let server: Server;
let proxy: InsertProxy;
/** Bodies that arrived whole, in order. */
let arrived: string[];

beforeEach(async () => {
  arrived = [];
  server = createServer((request, response) => {
    const pieces: Buffer[] = [];
    request.on("data", (piece: Buffer) => pieces.push(piece));
    request.on("error", () => undefined);
    request.on("end", () => {
      arrived.push(Buffer.concat(pieces).toString());
      response.end(`answer ${arrived.length}`);
    });
  });
  const port = await freePort();
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  proxy = await InsertProxy.start(`http://127.0.0.1:${port}`);
});

afterEach(async () => {
  await proxy.close();
  server.closeAllConnections();
  server.close();
});

const insertInto = async (table: string): Promise<string> => {
  const query = encodeURIComponent(`INSERT INTO ${table} (a) FORMAT JSONCompactEachRow`);
  const answer = await fetch(`http://127.0.0.1:${proxy.port}/?query=${query}`, { method: "POST", body: ROWS });
  return answer.text();
};

async function trapped(stage: Stage, verdict: Verdict, whileHeld: () => void = () => undefined) {
  const trap: Trap = {
    statement: "insert",
    table: "rollup",
    stage,
    act: () => {
      whileHeld();
      return verdict;
    },
  };
  const isSprung = proxy.set(trap, 5_000);
  const answer = await insertInto("rollup").catch(() => "no answer");
  return { isSprung: await isSprung, answer };
}

test("a trap for a statement with a text takes no other of the same table", async () => {
  const select = async (sql: string): Promise<string> =>
    (await fetch(`http://127.0.0.1:${proxy.port}/`, { method: "POST", body: sql })).text();
  const taken: string[] = [];
  const act = (): Verdict => {
    taken.push(`after ${arrived.length}`);
    return "go-on";
  };
  const isSprung = proxy.set(
    { statement: "select", table: "raw_events", holding: "LIMIT {n:", stage: "before", act },
    5_000,
  );
  await select("SELECT 1 FROM raw_events");
  await select("SELECT 1 FROM raw_events LIMIT {n:UInt32}");
  await select("SELECT 1 FROM raw_events LIMIT {n:UInt32}");
  expect(await isSprung).toBe(true);
  expect(taken).toEqual(["after 1"]);
});

test("other requests pass while a trap waits, and a trap that meets nothing says so", async () => {
  const isSprung = proxy.set({ statement: "insert", table: "rollup", stage: "before", act: () => "cut" }, 300);
  expect(await insertInto("raw_events")).toBe("answer 1");
  expect(await isSprung).toBe(false);
  expect(await insertInto("rollup")).toBe("answer 2");
});

test("cut after the request: it arrived, and there is no answer", async () => {
  expect(await trapped("sent", "cut")).toEqual({ isSprung: true, answer: "no answer" });
  await expect.poll(() => arrived).toEqual([ROWS]);
});

test("half-closed in its body: it never arrives whole", async () => {
  expect(await trapped("half", "half-close")).toEqual({ isSprung: true, answer: "no answer" });
  expect(await insertInto("rollup")).toBe("answer 1");
  expect(arrived).toEqual([ROWS]);
});

test("held half sent and let go: it arrives whole and is answered", async () => {
  expect(await trapped("half", "go-on")).toEqual({ isSprung: true, answer: "answer 1" });
  expect(arrived).toEqual([ROWS]);
});

test("held before it is sent: nothing has arrived by then", async () => {
  let before: number | null = null;
  const outcome = await trapped("before", "go-on", () => {
    before = arrived.length;
  });
  expect({ ...outcome, before }).toEqual({ isSprung: true, answer: "answer 1", before: 0 });
});

test("sent twice: the server sees two, the client one answer", async () => {
  expect(await trapped("answered", "twice")).toEqual({ isSprung: true, answer: "answer 1" });
  expect(arrived).toEqual([ROWS, ROWS]);
});

test("a request that dies before its answer leaves the trap for the next one", async () => {
  const isSprung = proxy.set({ statement: "insert", table: "rollup", stage: "answered", act: () => "go-on" }, 5_000);
  server.once("connection", (socket) => socket.destroy());
  expect(await insertInto("rollup").catch(() => "no answer")).toBe("no answer");
  expect(await insertInto("rollup")).toBe("answer 1");
  expect(await isSprung).toBe(true);
});

test("refusing for a while answers with the engine's own code", async () => {
  proxy.refuseInserts(60_000);
  expect(await insertInto("rollup")).toContain("Code: 252");
  expect(arrived).toEqual([]);
});
