/** A broken promise: which guarantee of docs/guarantees.md, and what was seen. */
export class Violation extends Error {
  readonly guarantee: string;

  constructor(guarantee: "G1" | "G2" | "G3" | "G4" | "G5" | "G7" | "G9", text: string) {
    super(`${guarantee} violated: ${text}`);
    this.guarantee = guarantee;
  }
}
