import { createServer } from "node:http";
import { EventEmitter, once } from "node:events";
import { describe, expect, test } from "vitest";
import { heldOpen, listening, runService } from "./service.ts";

const SILENT = { LOG_LEVEL: "silent" } as const;

describe("runService", () => {
  test("a signal closes everything in reverse order and ends with 0", async () => {
    const signals = new EventEmitter();
    const closed: string[] = [];
    const part = (name: string) => heldOpen(name, { close: () => Promise.resolve(closed.push(name)) });
    const exitCode = runService({
      name: "test",
      signals,
      load: () => SILENT,
      start: () => {
        setTimeout(() => signals.emit("SIGTERM"), 0);
        return Promise.resolve([part("store"), part("log"), part("door")]);
      },
    });
    expect(await exitCode).toBe(0);
    expect(closed).toEqual(["door", "log", "store"]);
  });

  test("a signal during the start is kept until everything is open", async () => {
    const signals = new EventEmitter();
    const closed: string[] = [];
    const exitCode = await runService({
      name: "test",
      signals,
      load: () => SILENT,
      start: () => {
        signals.emit("SIGINT");
        return Promise.resolve([heldOpen("store", { close: () => Promise.resolve(closed.push("store")) })]);
      },
    });
    expect({ exitCode, closed }).toEqual({ exitCode: 0, closed: ["store"] });
  });

  test("a part that fails closes the others and ends with 1", async () => {
    const closed: string[] = [];
    const { promise: failed, reject } = Promise.withResolvers<never>();
    const exitCode = await runService({
      name: "test",
      signals: new EventEmitter(),
      load: () => SILENT,
      start: () => {
        setImmediate(() => reject(new Error("the broker is gone")));
        return Promise.resolve([heldOpen("log", { failed, close: () => Promise.resolve(closed.push("log")) })]);
      },
    });
    expect({ exitCode, closed }).toEqual({ exitCode: 1, closed: ["log"] });
  });

  test("a start that fails ends with 1", async () => {
    const start = () => Promise.reject(new Error("no store"));
    expect(await runService({ name: "test", signals: new EventEmitter(), load: () => SILENT, start })).toBe(1);
  });
});

test("a port that is taken is named with its variable, another error stays as it is", async () => {
  const taken = createServer().listen(0, "127.0.0.1");
  await once(taken, "listening");
  const address = taken.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  const listen = async (place: { host: string; port: number }): Promise<void> => {
    await once(createServer().listen(place), "listening");
  };
  await expect(listening({ host: "127.0.0.1", port, variable: "SOME_PORT" }, listen)).rejects.toMatchObject({
    code: "PORT_IN_USE",
    message: expect.stringContaining(`port ${port} on 127.0.0.1 is taken`) as string,
  });
  const other = listening({ host: "127.0.0.1", port, variable: "X" }, () => Promise.reject(new Error("no such host")));
  await expect(other).rejects.toThrow("no such host");
  taken.close();
});
