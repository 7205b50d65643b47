import { type LogRecord, TallyhouseError } from "@tallyhouse/domain";

/**
 * The largest record either adapter takes, by {@link recordBytes}. One number for both, so that a record accepted by one
 * is accepted by the other. Below Kafka's default `max.message.bytes` of 1,048,588 even alone and uncompressed.
 */
export const RECORD_BYTES_MAX = 1_000_000;

/** Upper bound of what framing adds per record, in both adapters: our frame takes 34 bytes, Kafka's record at most 31. */
const RECORD_OVERHEAD_BYTES = 64;
/** Upper bound per header: our frame takes 6 bytes, Kafka's varints at most 10. */
const HEADER_OVERHEAD_BYTES = 10;
const HEADERS_MAX = 65_535;

/** Bytes a record takes, an upper bound of its stored size before compression. */
export function recordBytes(record: LogRecord): number {
  let bytes = RECORD_OVERHEAD_BYTES + (record.key?.length ?? 0) + (record.value?.length ?? 0);
  for (const name in record.headers) {
    bytes += HEADER_OVERHEAD_BYTES + Buffer.byteLength(name) + (record.headers[name]?.length ?? 0);
  }
  return bytes;
}

/**
 * Checks one call's records before any of them is queued, so that a refusal appends nothing.
 * @returns the bytes of all records by {@link recordBytes}.
 * @throws {TallyhouseError} LOG_RECORD_TOO_LARGE (dead-letter), LOG_MISCONFIGURED (halt) for an unknown partition.
 */
export function checkedRecordBytes(
  records: readonly LogRecord[],
  log: { name: string; partitionCount: number },
): number {
  let total = 0;
  for (const record of records) {
    const { partition } = record;
    if (!Number.isInteger(partition) || partition < 0 || partition >= log.partitionCount) {
      throw new TallyhouseError({
        code: "LOG_MISCONFIGURED",
        action: "halt",
        message: `log ${log.name} has partitions 0 to ${log.partitionCount - 1}; a record names partition ${partition}`,
      });
    }
    const bytes = recordBytes(record);
    if (bytes > RECORD_BYTES_MAX || Object.keys(record.headers).length > HEADERS_MAX) {
      throw new TallyhouseError({
        code: "LOG_RECORD_TOO_LARGE",
        action: "dead-letter",
        message: `a record of ${bytes} bytes for log ${log.name} exceeds ${RECORD_BYTES_MAX} bytes or ${HEADERS_MAX} headers`,
      });
    }
    total += bytes;
  }
  return total;
}
