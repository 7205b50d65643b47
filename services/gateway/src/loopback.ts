/** Pages without sign-in are for the machine they run on. */
import type { FastifyRequest } from "fastify";
import type { Problem } from "./problem.ts";

const LOOPBACK_ADDRESS = /^(?:127\.\d{1,3}\.\d{1,3}\.\d{1,3}|::1|::ffff:127\.\d{1,3}\.\d{1,3}\.\d{1,3})$/;
const LOOPBACK_HOST = /^(?:localhost|127\.0\.0\.1|\[::1\])(?::\d{1,5})?$/i;

/**
 * Refuses whoever is not on this machine, by three signs, all needed: the connection's address; the Host header, or a page of
 * another site could have its own name resolved to 127.0.0.1 and read ours (DNS rebinding); no header of a proxy, or a reverse
 * proxy on this machine would make every visitor local.
 */
export function refuseOutsiders(request: FastifyRequest): Problem | null {
  const { headers, socket } = request.raw;
  const isLocal =
    LOOPBACK_ADDRESS.test(socket.remoteAddress ?? "") &&
    LOOPBACK_HOST.test(headers.host ?? "") &&
    headers["x-forwarded-for"] === undefined &&
    headers.forwarded === undefined;
  if (isLocal) return null;
  return {
    status: 403,
    code: "LOOPBACK_ONLY",
    detail: "this page has no sign-in; open it on the machine itself, at http://127.0.0.1 or http://localhost",
  };
}
