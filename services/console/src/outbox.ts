/** Moves control records from PostgreSQL into the log, in order, each at least once. */
import {
  type ControlFact,
  type ControlKey,
  type ControlStore,
  encodeControl,
  type EventLog,
  TallyhouseError,
} from "@tallyhouse/domain";
import { type Component, Counter, type Logger, pause, type Registry } from "@tallyhouse/runtime";

/** Records of one append: a few hundred bytes each. */
const BATCH_RECORDS_MAX = 500;

/** Facts about offsets: in a log that is read again under a new stream they must mean nothing. */
const OF_ONE_STREAM: ReadonlySet<string> = new Set<ControlFact["kind"]>(["void", "replace", "stream.close"]);

export interface OutboxPorts {
  readonly control: ControlStore;
  readonly log: EventLog;
  readonly logger: Logger;
  readonly metrics: Registry;
}

interface OutboxRow {
  readonly id: string;
  readonly partition: number;
  readonly kind: ControlFact["kind"];
  /** The fact without its kind. A json column, not jsonb: the order of dimensions is a part of the rule. */
  readonly body: object;
}

/**
 * Appends what waits, oldest first, one batch, and marks it.
 *
 * Append before mark: a crash in between appends the same activations again, which the aggregator takes as no-ops. The other order
 * would lose them, and a meter would never count. Rows of another stream are left alone.
 * @returns how many records were appended; 0 means that nothing waits.
 * @throws {TallyhouseError} LOG_UNAVAILABLE, LOG_FULL, STORE_UNAVAILABLE (retry).
 */
export async function drainOutbox(
  ports: Pick<OutboxPorts, "control" | "log">,
  input: { readonly streamId: number; readonly key: ControlKey },
): Promise<number> {
  const rows = await ports.control.query<OutboxRow>(
    `SELECT id, partition, kind, body FROM control_outbox
     WHERE appended_at IS NULL AND stream = $1 ORDER BY id LIMIT ${BATCH_RECORDS_MAX}`,
    [input.streamId],
  );
  if (rows.length === 0) return 0;
  const records = rows.map(({ partition, kind, body }) =>
    encodeControl({
      fact: { kind, ...body, ...(OF_ONE_STREAM.has(kind) ? { stream: input.streamId } : {}) } as ControlFact,
      partition,
      key: input.key,
    }),
  );
  await ports.log.append(records);
  await ports.control.query("UPDATE control_outbox SET appended_at = now() WHERE id = ANY($1::bigint[])", [
    rows.map(({ id }) => id),
  ]);
  return rows.length;
}

/** The outbox as a part of the process. Outages are retried for ever: the rows wait, and the status shows them. */
export function createOutbox(
  config: { readonly streamId: number; readonly key: ControlKey; readonly pollMs: number },
  ports: OutboxPorts,
): Component {
  const appended = new Counter({
    name: "tallyhouse_console_control_records",
    help: "Control records appended to the log from the outbox.",
    registers: [ports.metrics],
  });
  return {
    name: "console outbox",
    async run(signal) {
      while (!signal.aborted) {
        try {
          const count = await drainOutbox(ports, config);
          appended.inc(count);
          if (count > 0) continue;
        } catch (error) {
          if (!(error instanceof TallyhouseError) || error.action !== "retry") throw error;
          ports.logger.warn({ code: error.code, err: error }, "control records wait: will be tried again");
        }
        await pause(config.pollMs, signal);
      }
    },
    close: () => Promise.resolve(),
  };
}
