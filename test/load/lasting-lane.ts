import { pause } from "@tallyhouse/runtime";
import { type HttpLane, openHttpLane } from "./http-lane.ts";

const REQUEST_TIMEOUT_MS = 30_000;

/** A connection that is made anew after it broke or did not answer in time. */
export class LastingLane {
  readonly #url: string;
  #lane: HttpLane | null = null;

  constructor(url: string) {
    this.#url = url;
  }

  /** @returns the status; 0 when there was no answer. */
  async send(bytes: Buffer): Promise<number> {
    const noAnswer = new AbortController();
    try {
      const lane = (this.#lane ??= await openHttpLane(this.#url));
      // time passes here: an answer that never comes is one that is not waited for.
      const late = pause(REQUEST_TIMEOUT_MS, noAnswer.signal).then(() => 0);
      const status = await Promise.race([lane.send(bytes), late]);
      if (status === 0) this.close();
      return status;
    } catch {
      // Whether it was stored is unknown: the caller repeats it.
      this.close();
      return 0;
    } finally {
      noAnswer.abort();
    }
  }

  close(): void {
    this.#lane?.close();
    this.#lane = null;
  }
}
