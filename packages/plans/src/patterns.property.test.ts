import fc from "fast-check";
import { expect, test } from "vitest";
import { covers, meet } from "./patterns.ts";

const METHODS = ["GET", "POST"];
const segment = fc.constantFrom("a", "b", "*");
const pattern = fc
  .tuple(fc.constantFrom("*", ...METHODS), fc.array(segment, { maxLength: 3 }), fc.boolean())
  .map(([method, segments, isOpen]) => `${method} /${[...segments, ...(isOpen ? ["**"] : [])].join("/")}`);

/** Every request of up to four segments over three names: "c" stands for whatever no pattern names. */
const REQUESTS = METHODS.flatMap((method) => {
  const paths: string[][] = [[]];
  for (let from = 0; from < paths.length; from += 1) {
    const path = paths[from] ?? [];
    if (path.length < 4) for (const name of ["a", "b", "c"]) paths.push([...path, name]);
  }
  return paths.map((path) => `${method} /${path.join("/")}`);
});

/** The dull way: one regular expression for each pattern. */
function matching(text: string): string[] {
  const [method = "", path = ""] = text.split(" ");
  const parts = path
    .split("/")
    .filter((part) => part !== "")
    .map((part) => (part === "**" ? "(/[^/]+)*" : part === "*" ? "/[^/]+" : `/${part}`));
  const rule = new RegExp(`^${method === "*" ? "[A-Z]+" : method} ${parts.join("")}/?$`);
  return REQUESTS.filter((request) => rule.test(request));
}

test("two patterns meet in exactly the requests that both match", () => {
  fc.assert(
    fc.property(pattern, pattern, (a, b) => {
      const both = meet(a, b);
      const others = new Set(matching(b));
      expect(both === null ? [] : matching(both)).toEqual(matching(a).filter((request) => others.has(request)));
    }),
    { numRuns: 500 },
  );
});

test("one covers another exactly when it matches all that the other does", () => {
  fc.assert(
    fc.property(pattern, pattern, (outer, inner) => {
      const all = new Set(matching(outer));
      expect(covers(outer, inner)).toBe(matching(inner).every((request) => all.has(request)));
    }),
    { numRuns: 500 },
  );
});
