/** The end of a stream: one `stream.close` record in every partition, behind which nothing counts. */
import type { AnalyticsStore, Authenticator, ControlStore } from "@tallyhouse/domain";
import type { Clock } from "@tallyhouse/runtime";
import type { FastifyInstance } from "fastify";
import { z } from "zod";
import { authenticate } from "./auth.ts";
import { sendProblem } from "./problem.ts";

/** Body of `POST /admin/v1/stream/close`: the stream's number, so that nobody ends one by accident or a second time. */
export const CloseBodySchema = z.strictObject({ stream: z.int().min(0).max(65_535) });

interface StreamPorts {
  readonly analytics: AnalyticsStore;
  readonly control: ControlStore;
  readonly authenticator: Authenticator;
  readonly clock: Clock;
  readonly stream: { readonly streamId: number; readonly partitionCount: number };
}

/** `POST /admin/v1/stream/close`. Safe to repeat: yes, it says how far the close is. A stream serves both modes, so only a live token ends it. */
export function addStreamRoutes(app: FastifyInstance, ports: StreamPorts): void {
  const { streamId, partitionCount } = ports.stream;
  app.post("/admin/v1/stream/close", async (request, reply) => {
    const auth = await authenticate(request, ports.authenticator);
    if (auth.kind === "problem") return sendProblem(reply, auth.problem);
    if (auth.principal.mode !== "live") {
      const detail = "a stream serves both modes: closing it takes a live service token";
      return sendProblem(reply, { status: 401, code: "AUTH_INVALID", detail });
    }
    const body = CloseBodySchema.safeParse(request.body);
    if (!body.success || body.data.stream !== streamId) {
      const detail = `the body names the stream to close, and this one is {"stream": ${streamId}}`;
      return sendProblem(reply, { status: 400, code: "BODY_INVALID", detail });
    }
    await requestClose(ports);
    const closedPartitions = await countClosed(ports);
    const isClosed = closedPartitions === partitionCount;
    return reply
      .code(isClosed ? 200 : 202)
      .send({ stream: streamId, state: isClosed ? "closed" : "closing", partitions: partitionCount, closedPartitions });
  });
}

/** One row per partition for the outbox, once: it comes after every control record that was asked for before. */
async function requestClose({ control, clock, stream }: StreamPorts): Promise<void> {
  await control.transaction(async (tx) => {
    await tx.query(
      `INSERT INTO control_outbox (stream, partition, kind, body, created_at)
       SELECT $1::int, partition, 'stream.close', '{}'::json, $2 FROM generate_series(0, $3::int - 1) AS partition
       WHERE NOT EXISTS (SELECT 1 FROM control_outbox WHERE stream = $1::int AND kind = 'stream.close')`,
      [stream.streamId, new Date(clock.now()), stream.partitionCount],
    );
  });
}

/** Partitions whose close is folded and stored: the next stream may start when all are. */
async function countClosed({ analytics, stream }: StreamPorts): Promise<number> {
  const [row] = await analytics.select<{ closed: string }>(
    `SELECT toString(uniqExact(c.logPartition)) AS closed FROM control_records AS c
     INNER JOIN (SELECT logPartition, max(nextOffset) AS nextOffset FROM progress WHERE stream = {stream:UInt16}
                 GROUP BY logPartition) AS p ON p.logPartition = c.logPartition
     WHERE c.stream = {stream:UInt16} AND c.kind = 'stream.close' AND c.logOffset < p.nextOffset`,
    { stream: stream.streamId },
  );
  return Number(row?.closed ?? 0);
}
