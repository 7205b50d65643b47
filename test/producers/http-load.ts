/** Requests at a fixed rate, whatever becomes of the earlier ones, and what each was answered. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { pause } from "@tallyhouse/runtime";
import { cloudEvent } from "./usage.ts";

/** One request. Instants of performance.now(). */
export interface Answer {
  readonly sentAt: number;
  readonly elapsedMs: number;
  /** 0: no answer. */
  readonly status: number;
  readonly ids: readonly string[];
}

/** A gateway process, its address, and the largest memory it was seen with. */
export interface GatewayProcess {
  readonly url: string;
  residentBytes(): number;
  end(): Promise<void>;
}

/** Starts gateway.fixture.ts on a topic that exists. */
export async function startGatewayProcess(options: {
  brokers: string;
  topic: string;
  partitionCount: number;
}): Promise<GatewayProcess> {
  const program = new URL("./gateway.fixture.ts", import.meta.url).pathname;
  const args = [program, options.brokers, options.topic, String(options.partitionCount)];
  const child: ChildProcess = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  const ended = once(child, "exit");
  const first = child.stdout === null ? [] : await Promise.race([once(child.stdout, "data"), ended]);
  const url = String(first[0]).trim();
  if (!url.startsWith("http://")) throw new Error(`the gateway process ended: ${url}`);
  return {
    url,
    residentBytes: () => {
      const status = readFileSync(`/proc/${child.pid}/status`, "utf8");
      return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1_024;
    },
    end: async () => {
      child.kill("SIGKILL");
      await ended;
    },
  };
}

/** Sends until the signal aborts; resolves when the last request has its answer. `answers` fills as they come. */
export async function sendSteadily(input: {
  url: string;
  requestsPerSecond: number;
  eventsPerRequest: number;
  signal: AbortSignal;
  answers: Answer[];
}): Promise<void> {
  const { url, requestsPerSecond, eventsPerRequest, signal, answers } = input;
  const requests: Promise<void>[] = [];
  const startedAt = performance.now();
  for (let n = 0; !signal.aborted; n += 1) {
    const ids = Array.from({ length: eventsPerRequest }, (_, i) => `${n}-${i}`);
    requests.push(post(url, ids).then((answer) => void answers.push(answer)));
    // time passes here: the load is so many requests in each second, however slow the answers are.
    await pause(Math.max(0, startedAt + ((n + 1) * 1_000) / requestsPerSecond - performance.now()), signal);
  }
  await Promise.all(requests);
}

async function post(url: string, ids: readonly string[]): Promise<Answer> {
  const events = ids.map((id) => cloudEvent({ customer: "load", source: "test/load", id, tokens: 7 }));
  const sentAt = performance.now();
  const status = await fetch(`${url}/v1/events`, {
    method: "POST",
    headers: { authorization: "Bearer any", "content-type": "application/cloudevents-batch+json" },
    body: JSON.stringify(events),
  }).then(
    async (answer) => {
      await answer.arrayBuffer();
      return answer.status;
    },
    () => 0,
  );
  return { sentAt, elapsedMs: performance.now() - sentAt, status, ids };
}
