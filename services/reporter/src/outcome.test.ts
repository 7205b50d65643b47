import { describe, expect, it } from "vitest";
import { type AnswerKind, outcomeOf, type Transition } from "./outcome.ts";

type History = "first" | "doubted";
type Past = "fresh" | "refused" | "absent";

/** `outcome state doubt epoch verifyStep`, written down a second time from stripe.md 3.5, cell by cell. */
const EXPECTED: Record<AnswerKind, Record<History, Record<Past, string>>> = {
  accepted: {
    first: {
      fresh: "O01 accepted clear +0 none",
      refused: "O01 accepted clear +0 none",
      absent: "O01 accepted clear +0 none",
    },
    doubted: {
      fresh: "O01 accepted clear +0 none",
      refused: "O01 accepted clear +0 none",
      absent: "O01 accepted clear +0 none",
    },
  },
  duplicate: {
    first: {
      fresh: "O03 unknown keep +1 check",
      refused: "O03 unknown keep +1 check",
      absent: "O03 unknown keep +1 recheck",
    },
    doubted: {
      fresh: "O02 accepted clear +1 none",
      refused: "O03 unknown keep +1 check",
      absent: "O03 unknown keep +1 recheck",
    },
  },
  refused: {
    first: {
      fresh: "O04 rejected_sync clear +1 none",
      refused: "O04 rejected_sync clear +1 none",
      absent: "O04 rejected_sync clear +1 none",
    },
    doubted: {
      fresh: "O04 rejected_sync keep +1 none",
      refused: "O04 rejected_sync keep +1 none",
      absent: "O04 rejected_sync keep +1 none",
    },
  },
  unauthorised: {
    first: {
      fresh: "O05 planned clear +1 none",
      refused: "O05 planned clear +1 none",
      absent: "O05 unknown clear +1 resend",
    },
    doubted: {
      fresh: "O05 unknown keep +1 none",
      refused: "O05 unknown keep +1 none",
      absent: "O05 unknown keep +1 check",
    },
  },
  throttled: {
    first: {
      fresh: "O06 planned clear +0 none",
      refused: "O06 planned clear +0 none",
      absent: "O06 unknown clear +0 resend",
    },
    doubted: {
      fresh: "O07 unknown keep +0 none",
      refused: "O07 unknown keep +0 none",
      absent: "O07 unknown keep +0 check",
    },
  },
  failed: {
    first: {
      fresh: "O08 unknown keep +1 none",
      refused: "O08 unknown keep +1 none",
      absent: "O08 unknown keep +1 check",
    },
    doubted: {
      fresh: "O08 unknown keep +1 none",
      refused: "O08 unknown keep +1 none",
      absent: "O08 unknown keep +1 check",
    },
  },
  lost: {
    first: {
      fresh: "O09 unknown keep +0 none",
      refused: "O09 unknown keep +0 none",
      absent: "O09 unknown keep +0 check",
    },
    doubted: {
      fresh: "O09 unknown keep +0 none",
      refused: "O09 unknown keep +0 none",
      absent: "O09 unknown keep +0 check",
    },
  },
};

const textOf = (it: Transition): string =>
  `${it.outcome} ${it.state} ${it.doubt} +${it.raisesEpoch ? 1 : 0} ${it.verifyStep}`;

const cells = Object.entries(EXPECTED).flatMap(([kind, byDoubt]) =>
  Object.entries(byDoubt).flatMap(([doubt, byPast]) =>
    Object.entries(byPast).map(([past, expected]) => ({
      kind: kind as AnswerKind,
      doubt: doubt as History,
      past: past as Past,
      expected,
    })),
  ),
);

describe("what an answer means", () => {
  it.each(cells)("$kind, $doubt, $past: $expected", ({ kind, doubt, past, expected }) => {
    const history = {
      hasDoubt: doubt === "doubted",
      wasRefused: past === "refused",
      isProvenAbsent: past === "absent",
    };
    expect(textOf(outcomeOf({ kind, networkAttempts: 1 }, history))).toBe(expected);
  });

  it("G2 a second network attempt is a doubt: an executed first one can hide behind a 429", () => {
    const history = { hasDoubt: false, wasRefused: false, isProvenAbsent: false };
    expect(outcomeOf({ kind: "throttled", networkAttempts: 1 }, history).state).toBe("planned");
    expect(outcomeOf({ kind: "throttled", networkAttempts: 2 }, history).state).toBe("unknown");
  });

  it("the proof of absence outweighs an older refusal", () => {
    const history = { hasDoubt: true, wasRefused: true, isProvenAbsent: true };
    expect(outcomeOf({ kind: "duplicate", networkAttempts: 1 }, history).verifyStep).toBe("recheck");
  });
});
