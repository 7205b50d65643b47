/** The guarantees of docs/guarantees.md that a simulation can see broken. */
export type Guarantee = "G1" | "G2" | "G3" | "G4" | "G5" | "G7" | "G9";

/** A broken promise: which guarantee of docs/guarantees.md, and what was seen. */
export class Violation extends Error {
  readonly guarantee: Guarantee;

  constructor(guarantee: Guarantee, text: string) {
    super(`${guarantee} violated: ${text}`);
    this.guarantee = guarantee;
  }
}
