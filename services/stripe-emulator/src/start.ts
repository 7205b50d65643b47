import { once } from "node:events";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { buildApi } from "./api.ts";
import { loadApiDescription } from "./api-description.ts";
import { type Clock, systemClock } from "./clock.ts";
import { openEngine } from "./engine.ts";
import { noRateLimits, RequestCounts, stripeRateLimits } from "./limits.ts";
import { buildServer } from "./server.ts";
import type { IdentifierMemory } from "./state.ts";
import { type Truth, truthOf } from "./truth.ts";

/** How long a close waits for requests in flight. */
const CLOSE_GRACE_MS = 5_000;

/** Settings of one emulator. */
export interface StripeEmulatorOptions {
  /** Default 0: any free port. */
  readonly port?: number;
  /** Default `127.0.0.1`. `/` and `/_emulator/…` answer only loopback clients, whatever the host. */
  readonly host?: string;
  /** Where the state is kept; created when absent. Without it, everything is gone after {@link StripeEmulator.close}. */
  readonly dataFolder?: string;
  /** Ids follow from it. Default: the data folder's own, for a new one random. */
  readonly seed?: string;
  /** Default: the machine's time. */
  readonly clock?: Clock;
  /** Stripe's rate limits, and one call at a time per event name and customer. Default `on`. */
  readonly limits?: "on" | "off";
  /** How long after its receipt a meter event shows in summaries. Default 0. */
  readonly summaryLagMs?: number;
  /** How long a repeated identifier is refused. Default `24h`. */
  readonly identifierMemory?: IdentifierMemory;
}

/** A running emulator. */
export interface StripeEmulator {
  readonly url: string;
  readonly port: number;
  /** For `new Stripe(key, { ...stripeConfig, telemetry: false })`. */
  readonly stripeConfig: { readonly host: string; readonly port: number; readonly protocol: "http" };
  /** Everything received and what became of it, once durable. */
  truth(): Promise<Truth>;
  /** Finishes requests in flight, makes everything durable and frees port and folder. Safe to repeat. */
  close(): Promise<void>;
}

/**
 * Starts an emulator; it answers when the promise resolves.
 * @throws {Error} naming the port when it is in use, the folder when another process uses it, has another seed or is
 * damaged. Nothing stays open then.
 */
export async function startStripeEmulator(options: StripeEmulatorOptions = {}): Promise<StripeEmulator> {
  const { host = "127.0.0.1", port = 0, clock = systemClock, limits = "on", identifierMemory = "24h" } = options;
  const { dataFolder, seed, summaryLagMs = 0 } = options;
  const description = loadApiDescription();
  const engine = await openEngine({ dataFolder, seed, identifierMemory });
  const counts = new RequestCounts();
  const api = buildApi({
    description,
    engine,
    clock,
    settings: { summaryLagMs },
    rateLimits: limits === "on" ? stripeRateLimits(clock) : noRateLimits,
    isPairExclusive: limits === "on",
    counts,
  });
  let closing: Promise<void> | undefined;
  const isClosing = () => closing !== undefined;
  const server = buildServer({ api, engine, counts, apiVersion: description.version, isClosing });
  let address: AddressInfo;
  try {
    address = await listen(server, { host, port });
  } catch (error) {
    await engine.close();
    throw error;
  }
  return {
    url: `http://${host.includes(":") ? `[${host}]` : host}:${address.port}`,
    port: address.port,
    stripeConfig: { host, port: address.port, protocol: "http" },
    async truth() {
      await engine.durable();
      return truthOf(engine.state);
    },
    close() {
      // Requests first: one that still runs must find the journal open.
      closing ??= closeServer(server).then(() => engine.close());
      return closing;
    },
  };
}

async function listen(server: Server, { host, port }: { host: string; port: number }): Promise<AddressInfo> {
  try {
    server.listen(port, host);
    await once(server, "listening");
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    const reason = code === "EADDRINUSE" ? "is in use already" : "cannot be opened";
    throw new Error(`port ${port} on ${host} ${reason}`, { cause: error });
  }
  return server.address() as AddressInfo;
}

async function closeServer(server: Server): Promise<void> {
  const closed = once(server, "close");
  server.close();
  server.closeIdleConnections();
  const grace = setTimeout(() => server.closeAllConnections(), CLOSE_GRACE_MS);
  await closed;
  clearTimeout(grace);
}
