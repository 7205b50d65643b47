import { PassThrough } from "node:stream";
import { expect, test } from "vitest";
import { createWholeReader } from "./body.ts";
import { type BodyPlan, receiveBody } from "./receive-body.ts";

const plan = (): BodyPlan => ({
  coding: "identity",
  announcedBytes: undefined,
  bodyBytesMax: 10,
  inflatedBytesMax: 10,
  reader: createWholeReader((bytes) => {
    return { kind: "events", events: [{ kind: "parsed", value: bytes.toString() }], isCloudEventsOnly: false };
  }),
  onInflated: () => undefined,
});

test("a caller that went before its body was listened to, or in the middle of it, is an error and no waiting", async () => {
  const gone = new PassThrough();
  gone.destroy();
  await expect(receiveBody(gone, plan())).rejects.toMatchObject({ code: "ECONNRESET" });
  const going = new PassThrough();
  going.write("half");
  const received = receiveBody(going, plan());
  going.destroy();
  await expect(received).rejects.toMatchObject({ code: "ECONNRESET" });
});

test("what comes in pieces is one body; the first byte too many ends the reading and nothing else", async () => {
  const pieces = new PassThrough();
  const received = receiveBody(pieces, plan());
  pieces.write("01234");
  pieces.end("56789");
  expect(await received).toMatchObject({ events: [{ value: "0123456789" }] });
  const tooMany = new PassThrough();
  const refused = receiveBody(tooMany, plan());
  tooMany.write("01234567890");
  expect(await refused).toMatchObject({ kind: "problem", problem: { status: 413, code: "BODY_TOO_LARGE" } });
  expect([tooMany.destroyed, tooMany.isPaused(), tooMany.listenerCount("data")]).toEqual([false, true, 0]);
});

test("what a reader throws comes out, and leaves no listener behind", async () => {
  const stream = new PassThrough();
  const reader = {
    write: () => {
      throw new RangeError("a bug");
    },
    end: () => {
      throw new Error("never reached");
    },
  };
  const received = receiveBody(stream, { ...plan(), reader });
  stream.write("x");
  await expect(received).rejects.toThrow("a bug");
  expect(stream.listenerCount("data")).toBe(0);
});
