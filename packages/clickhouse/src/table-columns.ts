import { type Column, columnTypeOf } from "./column-types.ts";

/** Columns as DESCRIBE names them. */
export type Described = readonly { readonly name: string; readonly type: string }[];

/** What is known of one table. */
export interface KnownTable {
  readonly columns: ReadonlyMap<string, Column>;
  /** Of the last insert: how much memory to take for the next. */
  rowBytes: number | undefined;
}

/** The columns of the tables that were inserted into, asked for once. */
export class TableColumns {
  readonly #known = new Map<string, KnownTable>();

  /** Undefined: nothing is known yet, or it was forgotten. */
  get(table: string): KnownTable | undefined {
    return this.#known.get(table);
  }

  /** Keeps what the engine just said. */
  learn(table: string, described: Described): KnownTable {
    const columns = described.map(
      ({ name, type }) => [name, { name, typeName: type, type: columnTypeOf(type) }] as const,
    );
    const known = { columns: new Map(columns), rowBytes: undefined };
    this.#known.set(table, known);
    return known;
  }

  /** A migration may have changed the table under this process: the next insert asks again. */
  forget(table: string): void {
    this.#known.delete(table);
  }
}
