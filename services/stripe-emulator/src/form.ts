/** A form parameter as sent: a text, or a group written with brackets. Array elements have the keys 0, 1, …. */
export type FormNode = string | FormGroup;
export interface FormGroup {
  [key: string]: FormNode;
}

/** Pairs in one request: far more than any documented operation needs. */
const PAIRS_MAX = 1_000;
/** Brackets behind one name; the deepest documented parameter has 5. */
const DEPTH_MAX = 10;

/** Thrown by {@link parseForm} with a sentence for the caller. */
export class FormError extends Error {
  override readonly name = "FormError";
}

/** An empty group. Without a prototype, so that a parameter named `__proto__` is one like any other. */
export function emptyGroup(): FormGroup {
  return Object.create(null) as FormGroup;
}

/**
 * Reads `application/x-www-form-urlencoded` with Stripe's brackets (`a[b]=1`, `a[0]=1`, `a[]=1`) into `into`.
 * Of a name given twice the last value wins.
 * @throws {FormError} broken percent-encoding, unbalanced brackets, a name that is value and group, or a limit passed.
 */
export function parseForm(text: string, into: FormGroup): void {
  if (text === "") return;
  const pairs = text.split("&");
  if (pairs.length > PAIRS_MAX) throw new FormError(`A request takes at most ${PAIRS_MAX} parameters.`);
  for (const pair of pairs) {
    if (pair === "") continue;
    const equals = pair.indexOf("=");
    const name = decode(equals === -1 ? pair : pair.slice(0, equals));
    put(into, name, equals === -1 ? "" : decode(pair.slice(equals + 1)));
  }
}

function decode(text: string): string {
  if (!/[%+]/.test(text)) return text;
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch (cause) {
    throw new FormError("Invalid percent-encoding in the request's parameters.", { cause });
  }
}

function put(root: FormGroup, name: string, value: string): void {
  const keys = keysOf(name);
  let group = root;
  for (const [depth, key] of keys.entries()) {
    const slot = key === "" && depth > 0 ? String(Object.keys(group).length) : key;
    if (depth === keys.length - 1) {
      if (typeof group[slot] === "object") throw new FormError(`Invalid parameter ${name}: both a value and a group.`);
      group[slot] = value;
      return;
    }
    const next = group[slot] ?? emptyGroup();
    if (typeof next === "string") throw new FormError(`Invalid parameter ${name}: both a value and a group.`);
    group[slot] = next;
    group = next;
  }
}

function keysOf(name: string): string[] {
  const bracket = name.indexOf("[");
  if (bracket === -1) return [name];
  const groups = name.slice(bracket);
  if (!/^(?:\[[^[\]]*\])+$/.test(groups)) throw new FormError(`Invalid parameter name: ${name}`);
  const keys = [name.slice(0, bracket), ...groups.slice(1, -1).split("][")];
  if (keys.length > DEPTH_MAX) throw new FormError(`Invalid parameter ${name}: nested too deep.`);
  return keys;
}

/** The same parameters always give the same text, in whatever order they were sent. */
export function canonicalText(node: FormNode): string {
  if (typeof node === "string") return JSON.stringify(node);
  const keys = Object.keys(node).sort();
  return `{${keys.map((key) => `${JSON.stringify(key)}:${canonicalText(node[key] ?? "")}`).join(",")}}`;
}
