/**
 * Request bodies that are built once and sent for ever: on each pass through them only the number of the pass in every id and
 * the time of every usage event are overwritten where they stand. A load client that shares the machine must cost little.
 */
import assert from "node:assert/strict";
import { type StreamedEvent, usageStream } from "./usage-stream.ts";

const PASS_DIGITS = 6;
const NUMBER_DIGITS = 7;
const TIME_CHARS = 24;
const DIGIT_ZERO = 48;

/** A body that is out: {@link LoadBody.release} it when it was answered. */
export interface LoadBody {
  /** The head, and a JSON array of structured CloudEvents. */
  readonly bytes: Buffer;
  readonly events: number;
  release(): void;
}

interface Template {
  readonly bytes: Buffer;
  readonly passAt: readonly number[];
  readonly timeAt: readonly number[];
  /** Identities and tokens of this body alone, repeats of earlier bodies left out. */
  readonly identities: number;
  readonly inputTokens: number;
  readonly lateInputTokens: number;
  isOut: boolean;
}

/** What all bodies taken so far hold together, each identity once. */
export interface TakenSum {
  readonly events: number;
  readonly identities: number;
  readonly inputTokens: number;
  /** The part of it that occurred in hours which had ended. */
  readonly lateInputTokens: number;
}

/** Takes bodies in turn, each with the head of its request before it. */
export class LoadBodies {
  readonly #templates: readonly Template[];
  readonly #eventsPerBody: number;
  readonly #templateTime: string;
  #taken = 0;
  #sum: TakenSum = { events: 0, identities: 0, inputTokens: 0, lateInputTokens: 0 };
  #passTime = Buffer.alloc(0);

  /** `bodies` must be more than are ever out at once. `headOf` is given the body's length. */
  constructor(input: {
    seed: number;
    bodies: number;
    eventsPerBody: number;
    nowAt: number;
    headOf: (bodyBytes: number) => string;
  }) {
    const { seed, nowAt } = input;
    this.#eventsPerBody = input.eventsPerBody;
    this.#templateTime = new Date(nowAt).toISOString();
    const prefix = `bench-${seed}-`;
    const idOf = (n: number): string => `${prefix}${"0".repeat(PASS_DIGITS)}${String(n).padStart(NUMBER_DIGITS, "0")}`;
    const stream = usageStream({ seed, nowAt, idOf, hasLate: true });
    this.#templates = Array.from({ length: input.bodies }, () => {
      const events = Array.from({ length: input.eventsPerBody }, () => stream.next().value as StreamedEvent);
      const fresh = events.filter(({ isRepeat }) => !isRepeat);
      const body = `[${events.map(({ text }) => text).join(",")}]`;
      const bytes = Buffer.from(`${input.headOf(body.length)}${body}`, "latin1");
      return {
        bytes,
        passAt: placesOf(bytes, `"id":"${prefix}`),
        timeAt: placesOf(bytes, `"time":"${this.#templateTime}`).map((at) => at - TIME_CHARS),
        identities: fresh.length,
        inputTokens: tokensOf(fresh),
        lateInputTokens: tokensOf(fresh.filter(({ isLate }) => isLate)),
        isOut: false,
      };
    });
  }

  /** The sum over every body taken: what must be counted when each of them was accepted. */
  get taken(): TakenSum {
    return this.#sum;
  }

  /** The next body; its usage events carry the time at which the pass began, so that a repeat equals what it repeats. */
  take(nowAt: number): LoadBody {
    const pass = Math.floor(this.#taken / this.#templates.length);
    const place = this.#taken % this.#templates.length;
    const template = this.#templates[place];
    assert(template !== undefined && !template.isOut && pass < 10 ** PASS_DIGITS, "more bodies are out than there are");
    if (place === 0) this.#passTime = Buffer.from(new Date(nowAt).toISOString(), "latin1");
    this.#taken += 1;
    const { events, identities, inputTokens, lateInputTokens } = this.#sum;
    this.#sum = {
      events: events + this.#eventsPerBody,
      identities: identities + template.identities,
      inputTokens: inputTokens + template.inputTokens,
      lateInputTokens: lateInputTokens + template.lateInputTokens,
    };
    template.isOut = true;
    this.#overwrite(template, pass);
    return { bytes: template.bytes, events: this.#eventsPerBody, release: () => void (template.isOut = false) };
  }

  #overwrite({ bytes, passAt, timeAt }: Template, pass: number): void {
    let rest = pass;
    for (let digit = PASS_DIGITS - 1; digit >= 0; digit -= 1) {
      const char = DIGIT_ZERO + (rest % 10);
      rest = Math.floor(rest / 10);
      for (const at of passAt) bytes[at + digit] = char;
    }
    for (const at of timeAt) this.#passTime.copy(bytes, at);
  }
}

function tokensOf(events: readonly StreamedEvent[]): number {
  return events.reduce((sum, { inputTokens }) => sum + inputTokens, 0);
}

/** Where the text ends, wherever it stands. */
function placesOf(bytes: Buffer, text: string): number[] {
  const places = [];
  for (let at = bytes.indexOf(text); at !== -1; at = bytes.indexOf(text, at + 1)) places.push(at + text.length);
  return places;
}
