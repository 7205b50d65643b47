/** Where a request comes from, as far as it can be known. */
import { isIPv4, isIPv6 } from "node:net";
import type { FastifyRequest } from "fastify";

/**
 * The client's address: the connection's, or, behind `proxyHops` proxies of ours, what the outermost of them wrote into
 * `X-Forwarded-For`. Everything further left was written by the caller.
 */
export function clientAddressOf(request: FastifyRequest, proxyHops: number): string {
  const connection = request.raw.socket.remoteAddress ?? "";
  if (proxyHops === 0) return connection;
  const forwarded = request.headers["x-forwarded-for"];
  const hops = (typeof forwarded === "string" ? forwarded : "").split(",").map((hop) => hop.trim());
  const address = hops.at(-proxyHops) ?? "";
  return isIPv4(address) || isIPv6(address) ? address : connection;
}

/** The network that failures are counted by: /24 of IPv4, /56 of IPv6, what one household or machine room is given. */
export function networkOf(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1] ?? address;
  if (isIPv4(mapped)) return mapped.split(".").slice(0, 3).join(".");
  if (!isIPv6(address)) return "unknown";
  // The browser's parser writes every form of an address in one way; then `::` is filled up.
  const [left = "", right = ""] = new URL(`http://[${address.split("%", 1)[0]}]`).hostname.slice(1, -1).split("::");
  const head = left.split(":").filter((group) => group !== "");
  const tail = right.split(":").filter((group) => group !== "");
  const groups = [...head, ...Array.from({ length: 8 - head.length - tail.length }, () => "0"), ...tail];
  const fourth = Number.parseInt(groups[3] ?? "0", 16) >> 8;
  return [...groups.slice(0, 3), fourth.toString(16)].join(":");
}
