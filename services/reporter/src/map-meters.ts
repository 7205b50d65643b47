import type { ControlStore } from "@tallyhouse/domain";
import type { Logger } from "@tallyhouse/runtime";
import type { AccountKey, Feed } from "./account.ts";
import { creationKeyOf } from "./identifier.ts";
import { recordset, sqlInstant } from "./ledger-row.ts";
import type { MappedFeed } from "./plan.ts";
import type { StripeApi, StripeMeter } from "./stripe/stripe-api.ts";

/** The feeds of the account that have an active Stripe meter. */
export async function mappedFeeds(
  control: ControlStore,
  account: AccountKey,
  feeds: readonly Feed[],
): Promise<MappedFeed[]> {
  const rows = await control.query<{ feed_id: string; stripe_meter_id: string }>(
    `SELECT feed_id, stripe_meter_id FROM stripe_meter_map
     WHERE mode = $1 AND stripe_account = $2 AND state = 'active'`,
    [account.mode, account.stripeAccount],
  );
  const meterIds = new Map(rows.map((row) => [row.feed_id, row.stripe_meter_id]));
  return feeds.flatMap((feed) => {
    const stripeMeterId = meterIds.get(feed.feedId);
    return stripeMeterId === undefined ? [] : [{ ...feed, stripeMeterId }];
  });
}

/**
 * Makes sure that every feed has a Stripe meter: journalled as `creating`, then looked for at Stripe over both statuses,
 * then created.
 *
 * Looking first makes a repeat after any crash harmless; the journal's key covers the time until a listing shows the new
 * meter. A call that fails leaves the feed for the next round. Safe to repeat.
 */
export async function mapMeters(input: {
  account: AccountKey;
  feeds: readonly Feed[];
  stripe: StripeApi;
  control: ControlStore;
  nowAt: number;
  log: Logger;
}): Promise<void> {
  const { account, control, log, stripe } = input;
  const open = await journal(input);
  if (open.length === 0) return;
  const listed = await stripe.listMeters();
  if (listed.kind !== "done") {
    log.warn({ answer: listed.kind, reason: listed.message }, "Stripe meters cannot be listed; tried again next round");
    return;
  }
  for (const row of open) {
    const named = listed.value.filter((meter) => meter.eventName === row.event_name);
    // Several inactive ones may share a name with one active one: that one takes the events.
    const found = named.find((meter) => meter.isActive) ?? named[0];
    if (found !== undefined) {
      await adopt({ account, control, feedId: row.feed_id, meter: found, log });
      continue;
    }
    const created = await stripe.createMeter({
      eventName: row.event_name,
      displayName: `${row.meter} v${row.meter_version}`,
      idempotencyKey: row.idempotency_key,
    });
    if (created.kind === "done") {
      await adopt({ account, control, feedId: row.feed_id, meter: created.value, log });
      continue;
    }
    log.warn({ feed: row.feed_id, answer: created.kind, reason: created.message }, "a Stripe meter was not created");
    // A definitive answer may be replayed for this key for 24 hours; the next round looks first, then uses a new one.
    if (created.kind === "failed" || created.kind === "refused") {
      const keyEpoch = row.key_epoch + 1;
      await control.query(
        `UPDATE stripe_meter_map SET key_epoch = $4::int, idempotency_key = $5
         WHERE mode = $1 AND stripe_account = $2 AND feed_id = $3`,
        [account.mode, account.stripeAccount, row.feed_id, keyEpoch, meterKeyOf(account, row.feed_id, keyEpoch)],
      );
    }
  }
}

interface OpenMeter {
  readonly feed_id: string;
  readonly meter: string;
  readonly meter_version: number;
  readonly event_name: string;
  readonly idempotency_key: string;
  readonly key_epoch: number;
}

/** Journals feeds without a row; returns those that have no Stripe meter yet. */
async function journal(input: {
  account: AccountKey;
  feeds: readonly Feed[];
  control: ControlStore;
  nowAt: number;
}): Promise<OpenMeter[]> {
  const { account, control, feeds, nowAt } = input;
  const read = (): Promise<(OpenMeter & { state: string })[]> =>
    control.query(
      `SELECT feed_id, meter, meter_version, event_name, idempotency_key, key_epoch, state FROM stripe_meter_map
       WHERE mode = $1 AND stripe_account = $2 ORDER BY feed_id`,
      [account.mode, account.stripeAccount],
    );
  const known = await read();
  const missing = feeds.filter((feed) => !known.some((row) => row.feed_id === feed.feedId));
  if (missing.length === 0) return known.filter((row) => row.state === "creating");
  await control.query(
    `INSERT INTO stripe_meter_map (mode, stripe_account, feed_id, meter, meter_version, event_name, state,
       idempotency_key, created_at)
     SELECT $1, $2, f.feed_id, f.meter, f.meter_version, f.event_name, 'creating', f.idempotency_key, $4::timestamptz
     FROM json_to_recordset($3::text::json) AS f (feed_id text, meter text, meter_version int, event_name text,
       idempotency_key text) ON CONFLICT DO NOTHING`,
    [
      account.mode,
      account.stripeAccount,
      recordset(
        missing.map((feed) => ({
          feed_id: feed.feedId,
          meter: feed.meter,
          meter_version: feed.version,
          event_name: feed.eventName,
          idempotency_key: meterKeyOf(account, feed.feedId, 0),
        })),
      ),
      sqlInstant(nowAt),
    ],
  );
  return (await read()).filter((row) => row.state === "creating");
}

function meterKeyOf(account: AccountKey, feedId: string, keyEpoch: number): string {
  return creationKeyOf([1, "meter", account.mode, account.stripeAccount, feedId, keyEpoch]);
}

/** Why a Stripe meter under our name cannot take our deltas; null when it can. Nothing here can be changed at Stripe. */
export function refusalOf(meter: StripeMeter): string | null {
  if (!meter.isActive) return "it is inactive";
  if (meter.formula !== "sum") return `its formula is ${meter.formula}, not sum`;
  if (meter.customerKey !== "stripe_customer_id") return `its customer key is ${meter.customerKey}`;
  if (meter.valueKey !== "value") return `its value key is ${meter.valueKey}`;
  return meter.hasTimeWindow ? "it has an event time window" : null;
}

async function adopt(input: {
  account: AccountKey;
  control: ControlStore;
  feedId: string;
  meter: StripeMeter;
  log: Logger;
}): Promise<void> {
  const { account, control, feedId, meter } = input;
  const refusal = refusalOf(meter);
  if (refusal !== null) {
    input.log.error(
      { feed: feedId, stripeMeter: meter.id, refusal },
      "Stripe has a meter of our name that we cannot use",
    );
  }
  await control.query(
    `UPDATE stripe_meter_map SET state = $4, stripe_meter_id = $5, refusal = $6
     WHERE mode = $1 AND stripe_account = $2 AND feed_id = $3 AND state = 'creating'`,
    [
      account.mode,
      account.stripeAccount,
      feedId,
      refusal === null ? "active" : "refused",
      refusal === null ? meter.id : null,
      refusal,
    ],
  );
}
