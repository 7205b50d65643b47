import type { Logger } from "./logger.ts";

/** A part of a process with one life: it runs until told to stop, or fails and takes the process with it. */
export interface Component {
  readonly name: string;
  /** Works until the signal aborts, then resolves. A rejection ends the process: a supervisor starts it anew. */
  run(signal: AbortSignal): Promise<void>;
  /** Releases what the component opened, after `run` ended. Safe to repeat. */
  close(): Promise<void>;
}

/** How long a stop may take before the process ends anyway; every durable effect survives that as it survives a kill. */
const CLOSE_GRACE_MS = 10_000;

/**
 * Runs all components; the signal or the first failure stops all, then they are closed in reverse order.
 * @returns 0 after a stop that was asked for, 1 after a failure.
 */
export async function runComponents(input: {
  components: readonly Component[];
  signal: AbortSignal;
  log: Logger;
}): Promise<0 | 1> {
  const { components, log } = input;
  const stop = new AbortController();
  const abort = (): void => stop.abort();
  input.signal.addEventListener("abort", abort, { once: true });
  if (input.signal.aborted) abort();
  let exitCode: 0 | 1 = 0;
  const fail = (component: string) => (error: unknown) => {
    exitCode = 1;
    log.error({ component, err: error }, "component failed");
    abort();
  };
  const runs = components.map(async (component) => {
    try {
      await component.run(stop.signal);
      if (!stop.signal.aborted) throw new Error(`${component.name} ended without being asked to`);
    } catch (error) {
      fail(component.name)(error);
    }
  });
  await aborted(stop.signal);
  await withinGrace(Promise.all(runs));
  for (const component of [...components].reverse()) {
    try {
      await withinGrace(component.close());
    } catch (error) {
      fail(component.name)(error);
    }
  }
  input.signal.removeEventListener("abort", abort);
  return exitCode;
}

/** Resolves when the signal aborts. */
export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

async function withinGrace(work: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`not closed within ${CLOSE_GRACE_MS} ms`)), CLOSE_GRACE_MS);
  });
  try {
    await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
