import { parseArgs } from "node:util";

/** Reads whole numbers by name from the command line. @throws {Error} naming the option that is wrong. */
export function numberOptions<Name extends string>(defaults: Readonly<Record<Name, number>>): Record<Name, number> {
  const names = Object.keys(defaults) as Name[];
  const { values } = parseArgs({
    options: Object.fromEntries(names.map((name) => [name, { type: "string" as const }])),
  });
  return Object.fromEntries(
    names.map((name) => {
      const text = values[name];
      if (typeof text === "string" && !/^\d{1,10}$/.test(text)) throw new Error(`--${name} takes a whole number`);
      return [name, text === undefined ? defaults[name] : Number(text)];
    }),
  ) as Record<Name, number>;
}
