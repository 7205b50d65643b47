import { createConnection } from "node:net";

const ATTEMPT_TIMEOUT_MS = 1_000;

/**
 * One Metadata request (version 1, no topics) to a broker. True when it answers with at least one live broker: a port that
 * is merely open may belong to a broker that still waits for its controller.
 * @see https://kafka.apache.org/protocol#The_Messages_Metadata (read 2026-11)
 */
export async function answersMetadata(port: number): Promise<boolean> {
  const clientId = Buffer.from("probe");
  const body = Buffer.alloc(10 + clientId.length + 4);
  body.writeInt16BE(3, 0); // api key: Metadata
  body.writeInt16BE(1, 2); // version
  body.writeInt32BE(1, 4); // correlation id
  body.writeInt16BE(clientId.length, 8);
  clientId.copy(body, 10);
  body.writeInt32BE(0, 10 + clientId.length); // no topics
  const size = Buffer.alloc(4);
  size.writeInt32BE(body.length);

  return new Promise((resolve) => {
    const socket = createConnection({ host: "127.0.0.1", port });
    let answer = Buffer.alloc(0);
    const end = (isAnswered: boolean): void => {
      socket.destroy();
      resolve(isAnswered);
    };
    socket.setTimeout(ATTEMPT_TIMEOUT_MS, () => end(false));
    socket.on("error", () => end(false));
    socket.on("close", () => end(false));
    socket.on("connect", () => socket.write(Buffer.concat([size, body])));
    socket.on("data", (bytes) => {
      answer = Buffer.concat([answer, bytes]);
      // size, correlation id, number of brokers
      if (answer.length >= 12) end(answer.readInt32BE(8) > 0);
    });
  });
}
