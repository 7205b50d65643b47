import { TallyhouseError } from "@tallyhouse/domain";
import { aborted, type Component, runComponents } from "./lifecycle.ts";
import { createLogger, type Logger, type LogLevel } from "./logger.ts";

/** After a signal the process ends within this time, whatever hangs: every durable effect survives that as it survives a kill. */
const STOP_MAX_MS = 25_000;
const STOP_SIGNALS = ["SIGINT", "SIGTERM"] as const;

/** Where a process hears that it should stop: `process`. */
export interface SignalSource {
  once(signal: (typeof STOP_SIGNALS)[number], listener: () => void): unknown;
}

/**
 * The life of one service process: configuration, start, run, orderly stop. Logs what went wrong; never throws.
 * @returns the exit code: 0 after a stop that was asked for, 1 after a failure, also of the configuration and of the start. The
 *   caller exits with it at once, so that a socket that hangs cannot keep a stopped process alive.
 */
export async function runService<Config extends { readonly LOG_LEVEL: LogLevel }>(service: {
  readonly name: string;
  readonly signals: SignalSource;
  load(): Config;
  /** Opens everything and listens; the components are closed in reverse order. */
  start(config: Config, logger: Logger): Promise<readonly Component[]>;
}): Promise<0 | 1> {
  const stop = new AbortController();
  for (const signal of STOP_SIGNALS) service.signals.once(signal, () => stop.abort());
  let log = createLogger({ level: "error", name: service.name });
  try {
    const config = service.load();
    log = createLogger({ level: config.LOG_LEVEL, name: service.name });
    const life = service
      .start(config, log)
      .then((components) => runComponents({ components, signal: stop.signal, log }));
    return await Promise.race([life, tooLate(stop.signal)]);
  } catch (error) {
    log.error({ err: error }, `${service.name} ended`);
    return 1;
  }
}

async function tooLate(stop: AbortSignal): Promise<never> {
  await aborted(stop);
  return new Promise((_resolve, reject) => {
    setTimeout(() => reject(new Error(`not stopped within ${STOP_MAX_MS} ms`)), STOP_MAX_MS).unref();
  });
}

/** A component without work of its own: open until it is closed, or until `failed` rejects. */
export function heldOpen(
  name: string,
  held: { readonly failed?: Promise<never>; close(): PromiseLike<unknown> },
): Component {
  return {
    name,
    run: (signal) => (held.failed === undefined ? aborted(signal) : Promise.race([aborted(signal), held.failed])),
    async close() {
      await held.close();
    },
  };
}

/**
 * Listens, and turns "address in use" into a sentence that names the port and the variable that sets it.
 * @throws {TallyhouseError} PORT_IN_USE (halt); any other error as it is.
 */
export async function listening<Result>(
  place: { readonly host: string; readonly port: number; readonly variable: string },
  listen: (place: { host: string; port: number }) => Promise<Result>,
): Promise<Result> {
  const { host, port, variable } = place;
  try {
    return await listen({ host, port });
  } catch (error) {
    const isTaken =
      error instanceof Error && /EADDRINUSE|in use/.test(`${(error as NodeJS.ErrnoException).code} ${error.message}`);
    if (!isTaken) throw error;
    const message = `port ${port} on ${host} is taken: stop what listens there or set ${variable} to another port`;
    throw new TallyhouseError({ code: "PORT_IN_USE", action: "halt", message, cause: error });
  }
}
