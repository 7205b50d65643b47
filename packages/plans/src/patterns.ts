/** Patterns of endpoints, `METHOD path`: `*` is one segment, `**` at the end is the rest, of any length. */

/** Every pattern that both match is matched by the result; null: no request is matched by both. */
export function meet(a: string, b: string): string | null {
  const [one, other] = [partsOf(a), partsOf(b)];
  const parts: string[] = [];
  for (let i = 0; ; i += 1) {
    const [x, y] = [one[i], other[i]];
    if (x === "**") return joined([...parts, ...other.slice(i)]);
    if (y === "**") return joined([...parts, ...one.slice(i)]);
    if (x === undefined && y === undefined) return joined(parts);
    if (x === undefined || y === undefined) return null;
    if (x !== "*" && y !== "*" && x !== y) return null;
    parts.push(x === "*" ? y : x);
  }
}

/** Whether `outer` matches whatever `inner` matches. */
export function covers(outer: string, inner: string): boolean {
  const [wide, narrow] = [partsOf(outer), partsOf(inner)];
  for (let i = 0; ; i += 1) {
    const [x, y] = [wide[i], narrow[i]];
    if (x === "**") return true;
    if (x === undefined || y === undefined) return x === y;
    if (y === "**" || (x !== "*" && x !== y)) return false;
  }
}

/** The method, then the segments. */
function partsOf(pattern: string): string[] {
  const [method = "", path = ""] = pattern.split(" ");
  return [method, ...path.split("/").filter((segment) => segment !== "")];
}

function joined([method = "", ...segments]: readonly string[]): string {
  return `${method} /${segments.join("/")}`;
}
