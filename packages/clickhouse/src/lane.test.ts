import { describe, expect, test } from "vitest";
import { Lane, STATEMENTS_WAITING_MAX } from "./lane.ts";

/** A statement that ends when it is told to. */
function held(): { statement: () => Promise<void>; end: () => void } {
  const { promise, resolve } = Promise.withResolvers<void>();
  return { statement: async () => promise, end: resolve };
}

describe("lane", () => {
  test("runs at most so many at a time, in order of arrival, and a failure lets the next one in", async () => {
    const lane = new Lane(2);
    const order: number[] = [];
    let running = 0;
    let most = 0;
    const results = await Promise.allSettled(
      Array.from({ length: 20 }, async (_, n) =>
        lane.run(async () => {
          order.push(n);
          running += 1;
          most = Math.max(most, running);
          await Promise.resolve();
          running -= 1;
          if (n % 3 === 0) throw new Error(`${n}`);
        }),
      ),
    );
    expect(order).toEqual(Array.from({ length: 20 }, (_, n) => n));
    expect(most).toBe(2);
    expect(results.filter(({ status }) => status === "rejected")).toHaveLength(7);
  });

  test("refuses more than its bound and takes statements again afterwards", async () => {
    const lane = new Lane(1);
    const first = held();
    const running = lane.run(first.statement);
    const waiting = Array.from({ length: STATEMENTS_WAITING_MAX }, async (_, n) => lane.run(async () => n));
    await expect(lane.run(async () => -1)).rejects.toMatchObject({ code: "STORE_UNAVAILABLE", action: "retry" });
    first.end();
    await running;
    expect(await Promise.all(waiting)).toHaveLength(STATEMENTS_WAITING_MAX);
    expect(await lane.run(async () => "again")).toBe("again");
  });

  test("closing waits for what was taken and refuses what comes later", async () => {
    const lane = new Lane(1);
    const first = held();
    const running = lane.run(first.statement);
    const waiting = lane.run(async () => "taken");
    let isClosed = false;
    const close = async (): Promise<void> => {
      await lane.close();
      isClosed = true;
    };
    const closing = close();
    await expect(lane.run(async () => "later")).rejects.toMatchObject({ code: "STORE_UNAVAILABLE" });
    expect(isClosed).toBe(false);
    first.end();
    expect(await waiting).toBe("taken");
    await Promise.all([running, closing]);
    await lane.close();
  });
});
