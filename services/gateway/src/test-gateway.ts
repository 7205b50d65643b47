/** A gateway for tests: in-memory log that does as it is told, two known tokens, a clock that stands. */
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import type { AddressInfo } from "node:net";
import { type EventLog, type LogRecord, readUsageEvent, type UsageEvent } from "@tallyhouse/domain";
import { createLogger, createMetrics, parseConfig, type Registry } from "@tallyhouse/runtime";
import type { FastifyInstance, LightMyRequestResponse } from "fastify";
import { buildGateway, GatewayConfigSchema, type GatewayPorts } from "./app.ts";

export const LIVE = "svc_live_th_0123456789abcdef";
export const TEST = "svc_test_th_0123456789abcdef";
export const NOW = Date.UTC(2026, 10, 20, 10, 0, 0);
export const NATIVE = { id: "evt-1", customer: "cus_1", type: "llm.request", data: { inputTokens: 10 } } as const;
export const CLOUD = {
  specversion: "1.0",
  id: "evt-1",
  source: "/api",
  type: "llm.request",
  subject: "cus_1",
  data: { inputTokens: 10 },
} as const;

export interface TestLog extends EventLog {
  /** Everything appended, in order. */
  readonly records: LogRecord[];
  /** What happens to the next appends; `keep` stores their records. By default: stores and resolves. */
  onAppend: (records: readonly LogRecord[], keep: () => void) => Promise<void>;
  isAway: boolean;
}

export function createTestLog(partitionCount = 16): TestLog {
  const records: LogRecord[] = [];
  const unused = (): never => {
    throw new Error("the gateway only appends and asks for bounds");
  };
  const log: TestLog = {
    name: "test log",
    partitionCount,
    records,
    isAway: false,
    onAppend: async (_records, keep) => keep(),
    append: (appended) => log.onAppend(appended, () => void records.push(...appended)),
    bounds: async () => {
      if (log.isAway) throw new Error("away");
      return { earliestOffset: 0, endOffset: records.length };
    },
    subscribe: unused,
    seek: unused,
    commitAdvisory: unused,
  };
  return log;
}

/** The usage events that stand in the log, as the aggregator would read them. */
export function eventsOf(log: TestLog): UsageEvent[] {
  return log.records.map(({ value }) => {
    const reading = readUsageEvent(JSON.parse((value ?? "").toString()), "live");
    if (reading.kind === "rejected") throw new Error(JSON.stringify(reading));
    return reading.event;
  });
}

export interface TestGateway {
  readonly app: FastifyInstance;
  readonly log: TestLog;
  readonly metrics: Registry;
}

/** Nothing listens on the discard port: a console that is away. */
const NO_CONSOLE = "http://127.0.0.1:9";

export async function startGateway(
  env: Record<string, number | string> = {},
  ports: Partial<GatewayPorts> & { log?: TestLog } = {},
): Promise<TestGateway> {
  const settings: Record<string, number | string> = { CONSOLE_URL: NO_CONSOLE, ...env };
  const texts = Object.entries(settings).map(([name, value]) => [name, String(value)]);
  const log = ports.log ?? createTestLog();
  const metrics = createMetrics();
  const app = await buildGateway(parseConfig(GatewayConfigSchema, Object.fromEntries(texts)), {
    authenticator: {
      verify: async (token) => (token === LIVE ? { mode: "live" } : token === TEST ? { mode: "test" } : null),
    },
    clock: { now: () => NOW },
    logger: createLogger({ level: "silent", name: "test" }),
    metrics,
    ...ports,
    log,
  });
  return { app, log, metrics };
}

/** Sends a body (text, or a value to print as JSON) to POST /v1/events without a socket. */
export function post(
  app: FastifyInstance,
  body: unknown,
  headers: Record<string, string> = {},
): Promise<LightMyRequestResponse> {
  return app.inject({
    method: "POST",
    url: "/v1/events",
    headers: { authorization: `Bearer ${LIVE}`, "content-type": "application/json", ...headers },
    payload: typeof body === "string" || Buffer.isBuffer(body) ? body : JSON.stringify(body),
  });
}

/** `status code`, after checking that the answer is a problem document and shows nothing of our insides. */
export function problemOf(answer: LightMyRequestResponse): string {
  const document = JSON.parse(answer.body) as Record<string, unknown>;
  const isWhole =
    answer.headers["content-type"] === "application/problem+json; charset=utf-8" ||
    answer.headers["content-type"] === "application/problem+json";
  const { type, title, status, code, detail, instance } = document;
  const texts = [type, title, code, detail, instance];
  if (!isWhole || status !== answer.statusCode || !texts.every((text) => typeof text === "string" && text !== "")) {
    throw new Error(`no problem document: ${answer.statusCode} ${JSON.stringify(answer.headers)} ${answer.body}`);
  }
  if (/\bat .+:\d+:\d+|node_modules|\.ts\b/.test(answer.body)) throw new Error(`shows a stack: ${answer.body}`);
  if (answer.statusCode === 503 && !/^\d+$/.test(String(answer.headers["retry-after"]))) {
    throw new Error("a 503 without Retry-After");
  }
  return `${answer.statusCode} ${String(code)}`;
}

/** Listens on a free port of this machine and returns it. */
export async function listen(app: FastifyInstance): Promise<number> {
  await app.listen({ host: "127.0.0.1", port: 0 });
  return (app.server.address() as AddressInfo).port;
}

/** A bare connection, with everything received so far and a promise of its end. */
export async function openConnection(
  port: number,
): Promise<{ socket: Socket; received: () => string; ended: Promise<unknown> }> {
  const socket = connect(port, "127.0.0.1");
  let text = "";
  socket.setEncoding("utf8").on("data", (part) => {
    text += String(part);
  });
  socket.on("error", () => socket.destroy());
  const ended = new Promise((resolve) => socket.once("close", resolve));
  await once(socket, "connect");
  return { socket, received: () => text, ended };
}

/** The head and body of a POST /v1/events request. */
export function rawPost(body: string, length = Buffer.byteLength(body)): string {
  return [
    "POST /v1/events HTTP/1.1",
    "host: localhost",
    `authorization: Bearer ${LIVE}`,
    "content-type: application/json",
    `content-length: ${length}`,
    "",
    body,
  ].join("\r\n");
}
