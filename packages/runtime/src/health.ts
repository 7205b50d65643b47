/** The three questions every process answers: does it live, can it work, what has it done. */
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { Registry } from "prom-client";
import { pause } from "./clock.ts";
import type { Component } from "./lifecycle.ts";

/** How long a probed part may take. */
const PROBE_TIMEOUT_MS = 1_000;
/** Bounds of the listener: its callers are probes and Prometheus. */
const REQUEST_TIMEOUT_MS = 5_000;
const CONNECTIONS_MAX = 100;

/** Whether a process can work, part by part. */
export interface Readiness {
  readonly isReady: boolean;
  /** Part → `ok`, or what is wrong with it in a few words. Anyone may read it. */
  readonly parts: Readonly<Record<string, string>>;
  /** Name with unit → figure, for whoever looks closer. */
  readonly figures?: Readonly<Record<string, number>>;
}

/** Ready when every state is `ok` and every probe answers within the time (default 1 s). Never throws. */
export async function readinessOf(input: {
  /** Part → `ok`, or what is wrong with it. */
  states?: Readonly<Record<string, string>>;
  /** Part → a question to it; a rejection means `unavailable`. */
  probes: Readonly<Record<string, (signal: AbortSignal) => Promise<unknown>>>;
  timeoutMs?: number;
  figures?: () => Readonly<Record<string, number>>;
}): Promise<Readiness> {
  const { states = {}, probes, timeoutMs = PROBE_TIMEOUT_MS, figures } = input;
  const answers = await Promise.all(
    Object.entries(probes).map(async ([part, ask]) => [part, await probe(ask, timeoutMs)] as const),
  );
  const parts: Record<string, string> = { ...states, ...Object.fromEntries(answers) };
  const isReady = Object.values(parts).every((state) => state === "ok");
  return { isReady, parts, ...(figures === undefined ? {} : { figures: figures() }) };
}

async function probe(ask: (signal: AbortSignal) => Promise<unknown>, timeoutMs: number): Promise<string> {
  const over = new AbortController();
  const late = pause(timeoutMs, over.signal).then(() => "does not answer");
  const answer = ask(over.signal).then(
    () => "ok",
    () => "unavailable",
  );
  try {
    return await Promise.race([answer, late]);
  } finally {
    over.abort();
  }
}

/** What the health answers are made of. */
export interface HealthSources {
  readonly readiness: () => Promise<Readiness>;
  readonly metrics: Registry;
}

/** One answer, for whatever server carries it. */
export interface HealthAnswer {
  readonly status: number;
  readonly contentType: string;
  readonly body: string;
}

/** The paths of {@link answerHealth}. */
export const HEALTH_PATHS = ["/livez", "/readyz", "/metrics"] as const;
type HealthPath = (typeof HEALTH_PATHS)[number];

/** Answers `/livez` (200 whenever the process can answer), `/readyz` (200 or 503) and `/metrics`. */
export async function answerHealth(path: HealthPath, sources: HealthSources): Promise<HealthAnswer> {
  const json = (status: number, body: object): HealthAnswer => ({
    status,
    contentType: "application/json",
    body: JSON.stringify(body),
  });
  switch (path) {
    case "/livez":
      return json(200, { status: "ok" });
    case "/readyz": {
      const { isReady, ...rest } = await sources.readiness();
      return json(isReady ? 200 : 503, { status: isReady ? "ready" : "not ready", ...rest });
    }
    case "/metrics":
      return { status: 200, contentType: sources.metrics.contentType, body: await sources.metrics.metrics() };
  }
}

/**
 * Listens for the health questions of a service that has no HTTP of its own. For the inside of a deployment: `/metrics` has no
 * sign-in.
 * @throws {Error} EADDRINUSE; nothing stays open.
 */
export async function startHealthListener(
  place: { readonly host: string; readonly port: number },
  sources: HealthSources,
): Promise<Component> {
  const server = createServer((request, response) => {
    const path = HEALTH_PATHS.find((known) => known === (request.url ?? "").split("?", 1)[0]);
    if (path === undefined) {
      response.writeHead(404).end();
      return;
    }
    void answerHealth(path, sources)
      .catch(() => ({ status: 500, contentType: "text/plain", body: "" }))
      .then(({ status, contentType, body }) =>
        response.writeHead(status, { "content-type": contentType, "cache-control": "no-store" }).end(body),
      );
  });
  server.requestTimeout = REQUEST_TIMEOUT_MS;
  server.maxConnections = CONNECTIONS_MAX;
  server.listen(place.port, place.host);
  await once(server, "listening");
  return { name: "health", run: (signal) => untilBroken(server, signal), close: () => closed(server) };
}

/** A listener that breaks ends the process: one that cannot be asked looks dead from outside. */
async function untilBroken(server: Server, signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

async function closed(server: Server): Promise<void> {
  if (!server.listening) return;
  const end = once(server, "close");
  server.close();
  server.closeAllConnections();
  await end;
}
