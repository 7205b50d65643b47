import { deflateSync, gzipSync } from "node:zlib";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createTestLog, listen, LIVE, NATIVE, startGateway } from "./test-gateway.ts";

const log = createTestLog();
let port: number;
let close: () => Promise<void>;
beforeAll(async () => {
  const { app } = await startGateway({}, { log });
  port = await listen(app);
  close = () => app.close();
});
afterAll(() => close());

async function send(body: Buffer | string, headers: Record<string, string> = {}): Promise<number> {
  const answer = await fetch(`http://127.0.0.1:${port}/v1/events`, {
    method: "POST",
    headers: { authorization: `Bearer ${LIVE}`, "content-type": "application/json", ...headers },
    body,
  });
  await answer.arrayBuffer();
  return answer.status;
}

/** 300 kB that would become 300 MB. */
const GZIP_BOMB = gzipSync(Buffer.alloc(300_000_000));
const DEFLATE_BOMB = deflateSync(Buffer.alloc(100_000_000));
const BOMBS: readonly [Buffer | string, Record<string, string>][] = [
  [GZIP_BOMB, { "content-encoding": "gzip" }],
  [DEFLATE_BOMB, { "content-encoding": "deflate" }],
  [`{"id":"b","customer":"c","type":"t","data":{"v":[${"[],".repeat(300_000)}1]}}`, {}],
  [`[${"{},".repeat(330_000)}{}]`, {}],
  ["[".repeat(999_999), {}],
  [`[${"1234567890123456789,".repeat(49_000)}1]`, {}],
  [`{"id":"${"x".repeat(990_000)}","customer":"c","type":"t"}`, {}],
  [`{"id":"b","customer":"c","type":"t","data":{"v":${"9".repeat(990_000)}}}`, {}],
  ["7\n".repeat(499_000), { "content-type": "application/x-ndjson" }],
  ["x".repeat(999_000), { "content-type": "application/x-ndjson" }],
];

test("100 bombs, ten at a time, cost no more memory than a few bodies; honest requests between them are taken", async () => {
  const round = async (): Promise<number[]> => Promise.all(BOMBS.map(([body, headers]) => send(body, headers)));
  // The first round brings the buffers and code that stay.
  for (let n = 0; n < 2; n += 1) await round();
  const rssBefore = process.memoryUsage.rss();
  let rssMax = rssBefore;
  const statuses: number[] = [];
  const honest: number[] = [];
  for (let n = 0; n < 10; n += 1) {
    const [refused, taken] = await Promise.all([round(), send(JSON.stringify({ ...NATIVE, id: `honest-${n}` }))]);
    statuses.push(...refused);
    honest.push(taken);
    rssMax = Math.max(rssMax, process.memoryUsage.rss());
  }
  expect(statuses).toHaveLength(100);
  expect(statuses.filter((status) => status !== 400 && status !== 413)).toEqual([]);
  expect(new Set(honest)).toEqual(new Set([202]));
  expect(log.records).toHaveLength(10);
  // Unpacked, the compressed ones alone would be 4 GB.
  expect(rssMax - rssBefore).toBeLessThan(300_000_000);
});
