/** Ports for servers that a developer or a test starts. */
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:net";

/**
 * Below the ports that the operating system gives to outgoing connections (Linux: 32768 to 60999, `ip_local_port_range`): one
 * of those could take the port before the server binds it, or while the server is killed and started again. No port of this
 * range is one that browsers and `fetch` refuse (https://fetch.spec.whatwg.org/#port-blocking).
 */
const FIRST = 20_000;
const LAST = 32_000;
const ATTEMPTS_MAX = 100;

/** A port on the loopback address that nobody listens on now, and that no outgoing connection takes. */
export async function freePort(): Promise<number> {
  for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt += 1) {
    const port = randomInt(FIRST, LAST);
    if (await isFree(port)) return port;
  }
  throw new Error(`no free port between ${FIRST} and ${LAST} in ${ATTEMPTS_MAX} attempts`);
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer();
  try {
    server.listen(port, "127.0.0.1");
    await once(server, "listening");
  } catch {
    return false;
  }
  server.close();
  await once(server, "close");
  return true;
}
