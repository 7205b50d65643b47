/**
 * Java-compatible murmur2 over `bytes[at, end)`, as 32-bit signed integer.
 * @see https://github.com/apache/kafka/blob/trunk/clients/src/main/java/org/apache/kafka/common/utils/Utils.java (read 2026-11)
 */
export function murmur2(bytes: Uint8Array, at = 0, end = bytes.length): number {
  const multiplier = 0x5bd1e995;
  const length = end - at;
  let hash = 0x9747b28c ^ length;
  const fullWords = length >> 2;
  for (let word = 0; word < fullWords; word += 1) {
    const i = at + word * 4;
    let k =
      ((bytes[i] as number) | ((bytes[i + 1] as number) << 8) | ((bytes[i + 2] as number) << 16)) +
      ((bytes[i + 3] as number) << 24);
    k = Math.imul(k, multiplier);
    k ^= k >>> 24;
    k = Math.imul(k, multiplier);
    hash = Math.imul(hash, multiplier) ^ k;
  }
  const rest = length & 3;
  const tail = at + (length & ~3);
  if (rest === 3) hash ^= (bytes[tail + 2] as number) << 16;
  if (rest >= 2) hash ^= (bytes[tail + 1] as number) << 8;
  if (rest >= 1) {
    hash ^= bytes[tail] as number;
    hash = Math.imul(hash, multiplier);
  }
  hash ^= hash >>> 13;
  hash = Math.imul(hash, multiplier);
  return hash ^ (hash >>> 15);
}

/** The partition of a record key: Kafka's default partitioner, so Java clients and we agree. Result in [0, partitionCount). */
export function partitionOfKey(key: Uint8Array, partitionCount: number): number {
  return partitionOfKeyAt(key, { at: 0, end: key.length }, partitionCount);
}

/** {@link partitionOfKey} of the key that stands at `bytes[part.at, part.end)`: a view of a part would cost more than its hash. */
export function partitionOfKeyAt(
  bytes: Uint8Array,
  part: { readonly at: number; readonly end: number },
  partitionCount: number,
): number {
  return (murmur2(bytes, part.at, part.end) & 0x7fffffff) % partitionCount;
}
