import { once } from "node:events";
import { createServer, request, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** What happens to one meter event call. `before`: Stripe never sees it; `after`: it does, and the true answer is lost. */
export interface Fault {
  readonly when: "before" | "after";
  readonly effect:
    | {
        readonly kind: "status";
        readonly status: number;
        readonly body: string;
        readonly headers?: Record<string, string>;
      }
    /** The connection is reset. */
    | { readonly kind: "reset" }
    /** The head and half of the body, then the end. */
    | { readonly kind: "truncated" }
    /** No answer at all. */
    | { readonly kind: "silence" };
}

/** An HTTP proxy before the emulator that answers meter event calls by a script, in order; then it passes all through. */
export interface FaultyProxy {
  readonly url: string;
  /** Faults still to come; null passes one call through. */
  readonly script: (Fault | null)[];
  close(): Promise<void>;
}

export async function startFaultyProxy(target: string): Promise<FaultyProxy> {
  const script: (Fault | null)[] = [];
  const server = createServer((incoming, outgoing) => {
    void (async () => {
      const body = await read(incoming);
      const isSend = incoming.method === "POST" && incoming.url === "/v1/billing/meter_events";
      const fault = isSend ? (script.shift() ?? null) : null;
      const answer = fault?.when === "before" ? null : await forward(target, incoming, body);
      if (fault !== null) return misbehave(outgoing, fault);
      outgoing.writeHead(answer?.status ?? 502, answer?.headers).end(answer?.body);
    })();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    script,
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

function misbehave(outgoing: ServerResponse, { effect }: Fault): void {
  switch (effect.kind) {
    case "status":
      outgoing.writeHead(effect.status, { "content-type": "application/json", ...effect.headers }).end(effect.body);
      return;
    case "reset":
      outgoing.socket?.resetAndDestroy();
      return;
    case "truncated":
      outgoing.writeHead(200, { "content-type": "application/json", "content-length": "100" });
      outgoing.write('{"object":', () => outgoing.socket?.destroy());
      return;
    case "silence":
      return;
  }
}

async function read(message: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of message) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

async function forward(
  target: string,
  incoming: IncomingMessage,
  body: Buffer,
): Promise<{ status: number; headers: IncomingMessage["headers"]; body: Buffer }> {
  const { connection: _connection, host: _host, ...headers } = incoming.headers;
  const url = new URL(incoming.url ?? "/", target);
  const outgoing = request(url, { method: incoming.method ?? "GET", headers, agent: false });
  outgoing.end(body);
  const [answer] = (await once(outgoing, "response")) as [IncomingMessage];
  const { connection: _closed, "transfer-encoding": _chunked, ...answered } = answer.headers;
  return { status: answer.statusCode ?? 502, headers: answered, body: await read(answer) };
}

/** Stripe's error document. */
export function stripeError(status: number, error: Record<string, string>, headers: Record<string, string> = {}) {
  return { kind: "status" as const, status, body: JSON.stringify({ error }), headers };
}
