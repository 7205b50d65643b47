import { until } from "@tallyhouse/testkit";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { counted, openTestConsole, progress, store, type TestConsole } from "../test-support.ts";
import { claimAudit, finishAudit, listAudits } from "./audit-rows.ts";
import { isDue } from "./audits.ts";
import { AUDIT_CHECKS, type AuditReport, type CheckResult } from "./run-audit.ts";

const NOW = Date.UTC(2026, 10, 22, 12);
const CLEAN: AuditReport = { isClean: true, cut: {}, checks: [] };
let console: TestConsole;

beforeAll(async () => {
  console = await openTestConsole(NOW);
});
afterEach(() => console.control.query("TRUNCATE audit"));
afterAll(() => console.close());

const checksOf = (body: Record<string, unknown>): CheckResult[] => body["checks"] as CheckResult[];

describe("POST /admin/v1/audits", () => {
  test("an empty deployment is clean, and the audit is kept", async () => {
    const { status, body } = await console.post("/admin/v1/audits", {});
    expect({ status, state: body["state"], checks: checksOf(body).map(({ check }) => check) }).toEqual({
      status: 200,
      state: "clean",
      checks: AUDIT_CHECKS,
    });
    const { body: list } = await console.get("/admin/v1/audits");
    expect(list).toMatchObject({ audits: [{ id: body["id"], state: "clean", isScheduled: false }] });
  });

  test("G3 counted rows that nothing accounts for differ; only a live token sees which", async () => {
    await store(console.analytics, [counted({ partition: 0, offset: 1 }, { occurredAt: NOW })], []);
    await progress(console.analytics, { logClockAt: NOW, nextOffset: 2_000, counted: 0 });
    const live = await console.post("/admin/v1/audits", { checks: ["A5"] });
    expect(live).toMatchObject({ status: 200, body: { state: "differs", checks: [{ check: "A5" }] } });
    const [check] = checksOf(live.body);
    expect(check?.examples).toContainEqual(expect.objectContaining({ logOffset: "1001", identities: [] }));
    expect(check?.statement).toContain("raw_events");
    const shown = await console.get("/admin/v1/audits", "test");
    expect(shown.body).toMatchObject({
      audits: [{ checks: [{ differences: check?.differences, examples: [], statement: null }] }],
    });
  });

  test("a running audit says where it is", async () => {
    await progress(console.analytics, { logClockAt: NOW, nextOffset: 2_000, counted: 0 });
    const asked: Promise<unknown>[] = [];
    const places: unknown[] = [];
    await until(
      async () => {
        // Refused while one runs; another one when that was too quick to be seen.
        asked.push(console.post("/admin/v1/audits", {}));
        const { body } = await console.get("/admin/v1/audits");
        const [running] = body["audits"] as { state: string; progress: unknown }[];
        if (running?.progress !== null && running?.progress !== undefined) places.push(running.progress);
        return places.length > 0;
      },
      { timeoutMs: 30_000, what: "a place is shown" },
    );
    expect(places[0]).toEqual({
      check: expect.stringMatching(/^A[1-8]$/),
      done: expect.any(Number),
      statements: expect.any(Number),
    });
    await Promise.all(asked);
    const { body } = await console.get("/admin/v1/audits");
    expect(body).toMatchObject({ audits: [{ progress: null }] });
  });

  test("one at a time; an unknown check is refused", async () => {
    const both = await Promise.all([console.post("/admin/v1/audits", {}), console.post("/admin/v1/audits", {})]);
    expect(new Set(both.map(({ status }) => status))).toEqual(new Set([200, 409]));
    expect(await console.post("/admin/v1/audits", { checks: ["A9"] })).toMatchObject({
      status: 400,
      body: { code: "BODY_INVALID" },
    });
    // The place is free again.
    expect(await console.post("/admin/v1/audits", { checks: ["A1"] })).toMatchObject({ status: 200 });
  });
});

describe("the daily audit", () => {
  const claim = (at: number) => claimAudit(console.control, { day: "2026-11-22", wanted: AUDIT_CHECKS, at });

  test("of several consoles one has it; done, it is not begun again", async () => {
    const claims = await Promise.all([claim(NOW), claim(NOW + 1), claim(NOW + 2)]);
    const [row] = claims.filter((each) => each !== null);
    expect(claims.filter((each) => each === null)).toHaveLength(2);
    if (row === undefined) throw new Error("nobody has it");
    await finishAudit(console.control, row, { at: NOW + 5_000, report: CLEAN });
    expect(await claim(NOW + 86_400_000)).toBeNull();
    expect(await listAudits(console.control)).toMatchObject([{ state: "clean", isScheduled: true }]);
  });

  test("a console that was away at the hour makes up for it, a first start does not", () => {
    const at = (hours: number): number => Date.UTC(2026, 10, 22) + hours * 3_600_000;
    const due = { now: at(3), startedAt: at(1), hour: 3, hasEarlier: false };
    expect(isDue(due)).toBe(true);
    expect(isDue({ ...due, now: at(2.9) })).toBe(false);
    expect(isDue({ ...due, now: at(9), startedAt: at(8) })).toBe(false);
    expect(isDue({ ...due, now: at(9), startedAt: at(8), hasEarlier: true })).toBe(true);
    expect(isDue({ ...due, now: at(27), startedAt: at(8) })).toBe(true);
  });

  test("one whose console died is taken over after six hours, and the dead one's result is not stored", async () => {
    const first = await claim(NOW);
    expect(await claim(NOW + 6 * 3_600_000)).toBeNull();
    const second = await claim(NOW + 6 * 3_600_000 + 1);
    if (first === null || second === null) throw new Error("both have it, one after the other");
    expect(second.id).toBe(first.id);
    await finishAudit(console.control, first, { at: NOW, failure: "late" });
    expect(await listAudits(console.control)).toMatchObject([{ state: "running" }]);
  });

  test("one that failed is tried again after ten minutes", async () => {
    const first = await claim(NOW);
    if (first === null) throw new Error("nobody else has it");
    await finishAudit(console.control, first, { at: NOW + 1, failure: "the store was away" });
    expect(await claim(NOW + 600_000)).toBeNull();
    expect(await claim(NOW + 600_001)).toMatchObject({ state: "running" });
  });
});
