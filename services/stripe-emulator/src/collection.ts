import { assert } from "./assert.ts";

/** Objects with ids in the order of their creation. Nothing is ever removed: a deleted object becomes a tombstone. */
export class Collection<T extends { readonly id: string }> {
  readonly rows: T[] = [];
  readonly #positions = new Map<string, number>();

  get(id: string): T | undefined {
    const position = this.#positions.get(id);
    return position === undefined ? undefined : this.rows[position];
  }

  /** -1 when there is no such object. Positions follow creation and never change. */
  positionOf(id: string): number {
    return this.#positions.get(id) ?? -1;
  }

  add(row: T): void {
    assert(!this.#positions.has(row.id), `id ${row.id} exists already`);
    this.#positions.set(row.id, this.rows.length);
    this.rows.push(row);
  }

  replace(row: T): void {
    const position = this.#positions.get(row.id);
    assert(position !== undefined, `no object ${row.id} to replace`);
    this.rows[position] = row;
  }
}
