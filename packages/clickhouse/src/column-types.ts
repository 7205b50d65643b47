/** How the values of one column are checked and written; {@link columnTypeOf} reads it from the engine's own words. */
export type ColumnType =
  | { readonly kind: "text" }
  /** LowCardinality(String): each text once, and a number per row. */
  | { readonly kind: "dictionary" }
  /** Array(String) */
  | { readonly kind: "texts" }
  | IntegerType
  | DecimalType
  /** Enum8 and Enum16: the stored number by name. */
  | { readonly kind: "enum"; readonly bytes: 1 | 2; readonly numbers: ReadonlyMap<string, number> };

/** Integers, and what is stored as one: Bool, DateTime (epoch seconds), DateTime64 (epoch in its own unit). */
export interface IntegerType {
  readonly kind: "integer";
  readonly bytes: 1 | 2 | 4 | 8 | 16 | 32;
  readonly min: bigint;
  readonly max: bigint;
  /** Whether only a `number` is taken: to the engine, text in a column of times is a date or counts seconds. */
  readonly isNumberOnly: boolean;
}

/** Decimal(precision, scale): the value times 10^scale. */
export interface DecimalType {
  readonly kind: "decimal";
  readonly bytes: 4 | 8 | 16 | 32;
  readonly scale: number;
  /** The largest stored number: `precision` nines. */
  readonly max: bigint;
}

/** One column of a table. */
export interface Column {
  readonly name: string;
  /** The engine's word for the type, which goes back to it with the values. */
  readonly typeName: string;
  /** Undefined: a type that no value can be written to. */
  readonly type: ColumnType | undefined;
}

/** Reads a type as DESCRIBE writes it; undefined for one that nothing here writes. Pure. */
export function columnTypeOf(typeName: string): ColumnType | undefined {
  switch (typeName) {
    case "String":
      return { kind: "text" };
    case "LowCardinality(String)":
      return { kind: "dictionary" };
    case "Array(String)":
      return { kind: "texts" };
    case "Bool":
      return { kind: "integer", bytes: 1, min: 0n, max: 1n, isNumberOnly: true };
    default:
      return integerOf(typeName) ?? timeOf(typeName) ?? decimalOf(typeName) ?? enumOf(typeName);
  }
}

function integerOf(typeName: string): IntegerType | undefined {
  const [, unsigned, bits] = /^(U?)Int(8|16|32|64|128|256)$/.exec(typeName) ?? [];
  if (bits === undefined) return undefined;
  return integer({ bits: Number(bits), isSigned: unsigned === "", isNumberOnly: false });
}

function timeOf(typeName: string): IntegerType | undefined {
  if (/^DateTime(\('[\w/+-]+'\))?$/.test(typeName)) return integer({ bits: 32, isSigned: false, isNumberOnly: true });
  if (/^DateTime64\(\d(, '[\w/+-]+')?\)$/.test(typeName))
    return integer({ bits: 64, isSigned: true, isNumberOnly: true });
  return undefined;
}

function integer({
  bits,
  isSigned,
  isNumberOnly,
}: {
  bits: number;
  isSigned: boolean;
  isNumberOnly: boolean;
}): IntegerType {
  const values = 1n << BigInt(bits);
  const min = isSigned ? -values / 2n : 0n;
  return { kind: "integer", bytes: (bits / 8) as IntegerType["bytes"], min, max: min + values - 1n, isNumberOnly };
}

function decimalOf(typeName: string): DecimalType | undefined {
  const [, precisionText, scaleText] = /^Decimal\((\d{1,2}), (\d{1,2})\)$/.exec(typeName) ?? [];
  if (precisionText === undefined) return undefined;
  const precision = Number(precisionText);
  const bytes = precision <= 9 ? 4 : precision <= 18 ? 8 : precision <= 38 ? 16 : 32;
  return { kind: "decimal", bytes, scale: Number(scaleText), max: 10n ** BigInt(precision) - 1n };
}

function enumOf(typeName: string): ColumnType | undefined {
  const [, bits, list = ""] = /^Enum(8|16)\((.*)\)$/s.exec(typeName) ?? [];
  // A name with a backslash is an escaped one: no enum of ours has it, so it is no type that we write.
  if (bits === undefined || list.includes("\\")) return undefined;
  const members = [...list.matchAll(/'([^']*)' = (-?\d+)/g)];
  return {
    kind: "enum",
    bytes: bits === "8" ? 1 : 2,
    numbers: new Map(members.map(([, name = "", number]) => [name, Number(number)])),
  };
}
