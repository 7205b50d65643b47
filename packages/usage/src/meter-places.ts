/** Where in the log a meter version counts: by partition, across a stream and the streams before it. */

/** A stream and those it goes on from, oldest first (StreamIdentity of the domain). */
export interface StreamSize {
  readonly streamId: number;
  readonly partitionCount: number;
  readonly predecessors?: readonly { readonly streamId: number; readonly partitionCount: number }[];
}

/** One activation of a meter version, as a partition stored it. */
export interface Activation {
  /** Key of the partition, see {@link placeOf}. */
  readonly place: string;
  readonly offset: bigint;
  /** The partition's log clock there, epoch milliseconds. */
  readonly bookedAt: number;
  /** Whether the usage in front of it is folded. */
  readonly isBackfilled: boolean;
}

/** What counts of one partition of a stream. */
export interface MeterPlace {
  /** Usage at this offset or behind it counts; null: none, the stream ended before the meter was activated. */
  readonly fromOffset: bigint | null;
  /** bookedAt of the activation whose backfill holds what stands in front of `fromOffset`; null while there is none. */
  readonly backfilledAt: number | null;
  /** Usage that occurred from here on does not count, epoch milliseconds; infinite without an end. */
  readonly untilAt: number;
}

/** Key of a partition of a stream. */
export function placeOf(stream: number, partition: number): string {
  return `${stream}/${partition}`;
}

/**
 * The places of one meter version. A new stream begins with the meters of its predecessors (partition k with those of k modulo their
 * count); a meter that is new to it is backfilled from them, too (partition k from partition k). Other streams stand for themselves.
 * @param activations by place, the first of each partition
 * @param ends by place, the earliest of each partition: an end lies ahead of all that was counted before it, so it holds for all offsets
 */
export function placesOf(
  activations: ReadonlyMap<string, Activation>,
  ends: ReadonlyMap<string, number>,
  stream: StreamSize,
): ReadonlyMap<string, MeterPlace> {
  const places = new Map<string, MeterPlace>();
  const endOf = (place: string): number => ends.get(place) ?? Number.POSITIVE_INFINITY;
  for (const { place, offset, bookedAt, isBackfilled } of activations.values()) {
    const backfilledAt = isBackfilled ? bookedAt : null;
    places.set(place, { fromOffset: offset, backfilledAt, untilAt: endOf(place) });
  }
  const before: { readonly streamId: number; readonly partitionCount: number }[] = [];
  for (const one of [...(stream.predecessors ?? []), stream]) {
    for (let partition = 0; partition < one.partitionCount; partition += 1) {
      const place = placeOf(one.streamId, partition);
      const inherited = before.map((old) => placeOf(old.streamId, partition % old.partitionCount));
      const own = activations.get(place);
      if (inherited.some((old) => activations.has(old))) {
        const untilAt = Math.min(endOf(place), ...inherited.map(endOf));
        places.set(place, { fromOffset: 0n, backfilledAt: null, untilAt });
      } else if (own?.isBackfilled === true) {
        const older = before.filter(({ partitionCount }) => partition < partitionCount);
        for (const { streamId } of older)
          places.set(placeOf(streamId, partition), {
            ...{ fromOffset: null, backfilledAt: own.bookedAt, untilAt: Number.POSITIVE_INFINITY },
          });
      }
    }
    before.push(one);
  }
  return places;
}

/** Whether every partition of the stream counts with the meter version. */
export function isActiveIn(places: ReadonlyMap<string, MeterPlace>, stream: StreamSize): boolean {
  for (let partition = 0; partition < stream.partitionCount; partition += 1)
    if ((places.get(placeOf(stream.streamId, partition))?.fromOffset ?? null) === null) return false;
  return true;
}
