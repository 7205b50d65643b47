/** One kept-alive HTTP connection that sends bytes and waits for the answer: a load client that costs a few microseconds a request. */
import { once } from "node:events";
import { connect, type Socket } from "node:net";

const HEAD_END = Buffer.from("\r\n\r\n");

export interface HttpLane {
  /** Sends one whole request; resolves with its answer's status. One at a time. */
  send(request: Buffer): Promise<number>;
  close(): void;
}

/** Connects to an origin such as `http://127.0.0.1:8080`. */
export async function openHttpLane(origin: string): Promise<HttpLane> {
  const { hostname, port } = new URL(origin);
  const socket: Socket = connect({ host: hostname, port: Number(port), noDelay: true });
  await once(socket, "connect");
  let received: Buffer = Buffer.alloc(0);
  let waiting: PromiseWithResolvers<number> | null = null;
  const fail = (error: Error): void => waiting?.reject(error);
  socket.on("error", fail);
  socket.on("close", () => fail(new Error("the gateway closed the connection")));
  socket.on("data", (chunk: Buffer) => {
    received = received.length === 0 ? chunk : Buffer.concat([received, chunk]);
    const status = wholeAnswerStatus(received);
    if (status === null) return;
    received = Buffer.alloc(0);
    waiting?.resolve(status);
  });
  return {
    send(request) {
      waiting = Promise.withResolvers<number>();
      socket.write(request);
      return waiting.promise;
    },
    close: () => socket.destroy(),
  };
}

/** Null while the answer is not whole. Answers of the gateway always say their length. */
function wholeAnswerStatus(bytes: Buffer): number | null {
  const headEnd = bytes.indexOf(HEAD_END);
  if (headEnd === -1) return null;
  const head = bytes.toString("latin1", 0, headEnd);
  const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1];
  if (length === undefined) throw new Error(`an answer without its length: ${head}`);
  return bytes.length < headEnd + HEAD_END.length + Number(length) ? null : Number(head.slice(9, 12));
}
