import { AsyncLocalStorage } from "node:async_hooks";
import { Agent as HttpAgent, type IncomingMessage } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import { Stripe } from "stripe";

/** What really went over the wire for one call of the SDK. */
export interface CallTrace {
  networkAttempts: number;
  /** Status of the last answer whose head arrived; null when none did. */
  status: number | null;
}

/** An HTTP client for the SDK that notes every network attempt of a call made inside {@link traced}. */
export interface TracingHttpClient {
  readonly client: Stripe.HttpClient;
  traced<Result>(trace: CallTrace, call: () => Promise<Result>): Promise<Result>;
  /** Closes idle connections. */
  close(): void;
}

/**
 * Wraps the SDK's Node client: keep-alive connections, attempts counted, and a bound on the whole answer.
 *
 * The SDK repeats a call once after ECONNRESET or EPIPE even with its retries off, so an executed first attempt can hide
 * behind a final 429: without the count such a row would be sent again as if it had never left.
 * @see node_modules/stripe: RequestSender._shouldRetry (23.1.0, read 2026-11)
 */
export function createTracingHttpClient(input: {
  protocol: "http" | "https";
  connectionsMax: number;
  attemptMs: number;
}): TracingHttpClient {
  const options = { keepAlive: true, maxSockets: input.connectionsMax, maxFreeSockets: input.connectionsMax };
  const agent = input.protocol === "http" ? new HttpAgent(options) : new HttpsAgent(options);
  const inner = Stripe.createNodeHttpClient(agent);
  const traces = new AsyncLocalStorage<CallTrace>();
  const makeRequest: Stripe.HttpClient["makeRequest"] = async (...request) => {
    const trace = traces.getStore();
    if (trace !== undefined) {
      trace.networkAttempts += 1;
      trace.status = null;
    }
    const response = await inner.makeRequest(...request);
    if (trace !== undefined) trace.status = response.getStatusCode();
    // The SDK's timeout is one of silence: a body that drips would hold its pair for ever.
    const message = response.getRawResponse() as IncomingMessage;
    const timer = setTimeout(() => message.destroy(), input.attemptMs);
    message.once("close", () => clearTimeout(timer));
    return response;
  };
  return {
    client: { getClientName: () => inner.getClientName(), makeRequest },
    traced: (trace, call) => traces.run(trace, call),
    close: () => agent.destroy(),
  };
}
