import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { MUTANTS } from "../simulation/mutants.ts";

/** A mutant whose text has gone from the sources would fail only when it is run, which takes minutes. */
test("every fault of the mutants fits the sources: the text that it replaces stands there once", () => {
  const places = MUTANTS.flatMap(({ name, edits }) =>
    edits.map(({ file, find }) => {
      const text = readFileSync(join(import.meta.dirname, "../..", file), "utf8");
      return { name, file, find, times: text.split(find).length - 1 };
    }),
  );
  expect(places.filter(({ times }) => times !== 1)).toEqual([]);
});
