/**
 * An HTTP proxy between one aggregator and ClickHouse that can hold, cut, halve and repeat its requests. Each request is read
 * whole before it goes on; a trap that is set takes the next request it fits.
 */
import { once } from "node:events";
import {
  Agent,
  type ClientRequest,
  createServer,
  type IncomingMessage,
  request as sendRequest,
  type Server,
  type ServerResponse,
} from "node:http";
import { freePort } from "@tallyhouse/infra/local/free-port.ts";
import type { Stage } from "./plan.ts";

/** What becomes of a trapped request once the trap's `act` has resolved. */
export type Verdict = "go-on" | "cut" | "half-close" | "twice";

/** Waits for one request. */
export interface Trap {
  readonly statement: "insert" | "select";
  readonly table: string;
  /** A text that the statement holds, where the table does not say enough. */
  readonly holding?: string;
  readonly stage: Stage;
  /** Runs while the request stands at the stage. */
  act(): Promise<Verdict> | Verdict;
}

interface Asked {
  readonly method: string | undefined;
  readonly path: string | undefined;
  readonly headers: IncomingMessage["headers"];
  readonly body: Buffer;
}

const INSERT = /^\s*INSERT\s+INTO\s+(\w+)/i;
const STATEMENT_BYTES_MAX = 65_536;
const TOO_MANY_PARTS =
  "Code: 252. DB::Exception: Too many parts. Merges are processing slower than inserts. (TOO_MANY_PARTS)\n";

/** Listens on a port of its own; `target` is ClickHouse's origin. */
export class InsertProxy {
  readonly port: number;
  readonly #target: URL;
  readonly #server: Server;
  readonly #agent = new Agent({ keepAlive: true });
  readonly #traps = new Set<{ trap: Trap; taken: () => void }>();
  #refusesUntil = 0;
  /** Statements that ClickHouse answered with an error. */
  failures = 0;

  private constructor(port: number, target: URL) {
    this.port = port;
    this.#target = target;
    this.#server = createServer((request, response) => {
      // Whatever breaks on the way breaks the connection, as a network would.
      this.#handle(request, response).catch(() => response.destroy());
    });
    this.#server.keepAliveTimeout = 10_000;
  }

  static async start(target: string): Promise<InsertProxy> {
    const proxy = new InsertProxy(await freePort(), new URL(target));
    proxy.#server.listen(proxy.port, "127.0.0.1");
    await once(proxy.#server, "listening");
    return proxy;
  }

  /** Resolves true when a request has sprung the trap, false when none came in time. */
  async set(trap: Trap, timeoutMs: number): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const entry = { trap, taken: () => resolve(true) };
    this.#traps.add(entry);
    const timer = setTimeout(() => resolve(false), timeoutMs); // time passes here: the bound of a wait.
    const isTaken = await promise;
    clearTimeout(timer);
    this.#traps.delete(entry);
    return isTaken;
  }

  /** Answers every insert with TOO_MANY_PARTS for so long. */
  refuseInserts(ms: number): void {
    this.#refusesUntil = performance.now() + ms;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    this.#agent.destroy();
    this.#server.close();
    await once(this.#server, "close");
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on("error", () => undefined);
    const pieces: Buffer[] = [];
    for await (const piece of request) pieces.push(piece as Buffer);
    const { method, url: path, headers } = request;
    const asked = { method, path, headers, body: Buffer.concat(pieces) };
    const insertInto = INSERT.exec(statementOfUrl(path))?.[1];
    if (insertInto !== undefined && performance.now() < this.#refusesUntil) {
      response.writeHead(500, { "X-ClickHouse-Exception-Code": "252" }).end(TOO_MANY_PARTS);
      return;
    }
    const trap = this.#take(({ stage, ...trap }) => stage !== "answered" && fits(trap, asked, insertInto));
    if (trap !== null) {
      await this.#spring(trap, asked, response);
      return;
    }
    const upstream = this.#open(asked);
    upstream.end(asked.body);
    const answer = await answerOf(upstream);
    if (answer.status >= 400) this.failures += 1;
    // Looked for only now: a request that dies on its way springs nothing.
    const late = this.#take(({ stage, ...trap }) => stage === "answered" && fits(trap, asked, insertInto));
    const verdict = (await late?.act()) ?? "go-on";
    if (verdict === "twice") await this.#repeat(asked);
    if (verdict === "cut") response.destroy();
    else response.writeHead(answer.status, answer.headers).end(answer.body);
  }

  #take(isWanted: (trap: Trap) => boolean): Trap | null {
    for (const entry of this.#traps) {
      if (!isWanted(entry.trap)) continue;
      this.#traps.delete(entry);
      entry.taken();
      return entry.trap;
    }
    return null;
  }

  /** Calls `act` whatever becomes of the request: whoever set the trap waits for it. */
  async #spring(trap: Trap, asked: Asked, response: ServerResponse): Promise<void> {
    const sentBytes = { before: 0, half: Math.floor(asked.body.length / 2), sent: asked.body.length, answered: 0 };
    const upstream = trap.stage === "before" ? null : this.#open(asked);
    const sent = asked.body.subarray(0, sentBytes[trap.stage]);
    if (trap.stage === "sent") upstream?.end(sent);
    else upstream?.write(sent);
    const early = upstream === null ? null : answerOf(upstream);
    // It may be rejected before it is awaited below, after `act`.
    early?.catch(() => undefined);
    const verdict = await trap.act();
    if (verdict === "half-close" && upstream !== null) await halfClose(upstream);
    if (verdict === "cut" && trap.stage === "half") upstream?.destroy();
    if (verdict !== "go-on") {
      response.destroy();
      return;
    }
    const last = upstream ?? this.#open(asked);
    if (trap.stage !== "sent") last.end(asked.body.subarray(sent.length));
    const { status, headers, body } = await (early ?? answerOf(last));
    response.writeHead(status, headers).end(body);
  }

  async #repeat(asked: Asked): Promise<void> {
    const again = this.#open(asked);
    again.end(asked.body);
    await answerOf(again);
  }

  #open({ method, path, headers, body }: Asked): ClientRequest {
    const { "transfer-encoding": chunked, "content-length": length, ...rest } = headers;
    const upstream = sendRequest({
      host: this.#target.hostname,
      port: this.#target.port,
      agent: this.#agent,
      method,
      path,
      headers: { ...rest, ...(chunked === undefined && length === undefined ? {} : { "content-length": body.length }) },
    });
    upstream.on("error", () => undefined);
    return upstream;
  }
}

/** Ends our side of the connection in the middle of the body. */
async function halfClose(upstream: ClientRequest): Promise<void> {
  if (upstream.socket === null) await once(upstream, "socket");
  upstream.socket?.end();
}

interface Answer {
  readonly status: number;
  readonly headers: IncomingMessage["headers"];
  readonly body: Buffer;
}

/** The whole answer; rejects when the connection ends before it does. */
async function answerOf(upstream: ClientRequest): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  upstream.once("response", resolve);
  upstream.once("close", () => reject(new Error("closed without an answer")));
  const answer = await promise;
  const pieces: Buffer[] = [];
  for await (const piece of answer) pieces.push(piece as Buffer);
  const {
    "transfer-encoding": _chunked,
    connection: _connection,
    "keep-alive": _keepAlive,
    ...headers
  } = answer.headers;
  return { status: answer.statusCode ?? 502, headers, body: Buffer.concat(pieces) };
}

function fits(trap: Omit<Trap, "stage">, asked: Asked, insertInto: string | undefined): boolean {
  if (trap.statement === "insert") return insertInto === trap.table;
  if (insertInto !== undefined) return false;
  // A statement stands in the body, or in the URL.
  const statement = `${statementOfUrl(asked.path)} ${asked.body.subarray(0, STATEMENT_BYTES_MAX).toString("latin1")}`;
  return new RegExp(String.raw`\bFROM ${trap.table}\b`).test(statement) && statement.includes(trap.holding ?? "");
}

function statementOfUrl(path: string | undefined): string {
  return new URL(path ?? "/", "http://proxy").searchParams.get("query") ?? "";
}
