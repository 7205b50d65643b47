import { expect, test } from "vitest";
import { type Activation, isActiveIn, type MeterPlace, placesOf } from "./meter-places.ts";

const NEVER = Number.POSITIVE_INFINITY;

function activations(...given: readonly Activation[]): ReadonlyMap<string, Activation> {
  return new Map(given.map((one) => [one.place, one]));
}

const activation = (place: string, offset: bigint, isBackfilled = true): Activation => ({
  ...{ place, offset, bookedAt: Number(offset) * 1_000, isBackfilled },
});
const place = (fromOffset: bigint | null, backfilledAt: number | null = null, untilAt = NEVER): MeterPlace => ({
  ...{ fromOffset, backfilledAt, untilAt },
});

test("a partition counts from its first activation on, and in front of it once that is backfilled", () => {
  const stream = { streamId: 3, partitionCount: 2 };
  const places = placesOf(
    activations(activation("3/0", 5n), activation("3/1", 7n, false)),
    new Map([["3/1", 9]]),
    stream,
  );
  expect(Object.fromEntries(places)).toEqual({ "3/0": place(5n, 5_000), "3/1": place(7n, null, 9) });
  expect(isActiveIn(places, stream)).toBe(true);
  expect(isActiveIn(places, { streamId: 3, partitionCount: 3 })).toBe(false);
});

test("a new stream begins with the meters and ends of its predecessors, whatever its partition count", () => {
  const stream = { streamId: 2, partitionCount: 4, predecessors: [{ streamId: 1, partitionCount: 2 }] };
  const before = activations(activation("1/0", 5n), activation("1/1", 6n));
  const places = placesOf(
    before,
    new Map([
      ["1/1", 90],
      ["2/3", 80],
    ]),
    stream,
  );
  expect(places.get("2/0")).toEqual(place(0n));
  expect(places.get("2/2")).toEqual(place(0n));
  expect(places.get("2/1")).toEqual(place(0n, null, 90));
  expect(places.get("2/3")).toEqual(place(0n, null, 80));
  expect(places.get("1/1")).toEqual(place(6n, 6_000, 90));
  expect(isActiveIn(places, stream)).toBe(true);
});

test("a meter that is new to a stream counts in the streams before it once it is backfilled, partition by partition", () => {
  const stream = {
    ...{ streamId: 3, partitionCount: 4 },
    predecessors: [
      { streamId: 1, partitionCount: 1 },
      { streamId: 2, partitionCount: 2 },
    ],
  };
  const given = activations(
    activation("3/0", 4n),
    activation("3/1", 5n, false),
    activation("3/2", 6n),
    activation("3/3", 7n),
  );
  expect(Object.fromEntries(placesOf(given, new Map(), stream))).toEqual({
    ...{ "1/0": place(null, 4_000), "2/0": place(null, 4_000) },
    ...{ "3/0": place(4n, 4_000), "3/1": place(5n), "3/2": place(6n, 6_000), "3/3": place(7n, 7_000) },
  });
});
