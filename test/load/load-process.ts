/** Starts the load client as a process of its own, so that its CPU is told apart from ours. */
import { fork } from "node:child_process";
import process from "node:process";
import type { TakenSum } from "./load-bodies.ts";

/** How the client sends. */
export interface LoadSettings {
  readonly url: string;
  readonly token: string;
  readonly seed: number;
  /** Late usage events occurred one to three hours before this instant. */
  readonly startAt: number;
  /** At most, in whole requests; 0: no limit. */
  readonly events: number;
  readonly eventsPerRequest: number;
  readonly connections: number;
  /** 0: as fast as requests are accepted. */
  readonly ratePerSecond: number;
  readonly seconds: number;
}

/** What the client sent; everything of it was answered 202. */
export interface LoadFigures extends TakenSum {
  readonly seconds: number;
  /** With a rate, from the moment a request was due; without, from its first byte. */
  readonly requestP50Ms: number;
  readonly requestP99Ms: number;
  /** Requests that were repeated: answered 429 or 503, or not at all. */
  readonly refusals: number;
  readonly cpuSeconds: number;
}

export interface LoadProcess {
  readonly pid: number;
  /** Resolves with the first request. */
  readonly started: Promise<void>;
  /** Resolves when everything was accepted. @throws {Error} when the client ended without. */
  readonly ended: Promise<LoadFigures>;
  stop(): void;
}

type Message = { readonly kind: "started" } | { readonly kind: "ended"; readonly figures: LoadFigures };

/** What the options of a benchmark say of its load. */
interface LoadOptions {
  readonly seed: number;
  readonly events: number;
  readonly seconds: number;
  readonly rate: number;
  readonly batch: number;
  readonly connections: number;
}

/** Starts the client against `target`; `startAt` as in {@link LoadSettings}. */
export function startLoadClient(
  target: { readonly url: string; readonly token: string },
  options: LoadOptions,
  startAt: number,
): LoadProcess {
  const settings: LoadSettings = {
    url: target.url,
    token: target.token,
    seed: options.seed,
    startAt,
    events: options.events,
    eventsPerRequest: options.batch,
    connections: options.connections,
    ratePerSecond: options.rate,
    seconds: options.seconds,
  };
  const child = fork(new URL("load-client.ts", import.meta.url).pathname, [JSON.stringify(settings)]);
  const killOnExit = (): void => void child.kill("SIGKILL");
  process.once("exit", killOnExit);
  const started = Promise.withResolvers<void>();
  const ended = Promise.withResolvers<LoadFigures>();
  child.on("message", (message: Message) => {
    if (message.kind === "started") started.resolve();
    else ended.resolve(message.figures);
  });
  child.once("exit", (code) => {
    process.off("exit", killOnExit);
    const error = new Error(`the load client ended with ${code}`);
    started.reject(error);
    ended.reject(error);
  });
  // Whoever does not wait for one of them has heard of it from the other.
  for (const each of [started, ended]) each.promise.catch(() => undefined);
  return {
    pid: child.pid ?? 0,
    started: started.promise,
    ended: ended.promise,
    stop: () => void child.kill("SIGKILL"),
  };
}
