export type { Bill, BillLine, DecimalText, ItemTotal, Price, RatedItem, RatedPlan, Tier, TierPart } from "./bill.ts";
export {
  type CreditGrant,
  type CreditNeed,
  type CreditSettlement,
  type CreditsSettled,
  settleCredits,
} from "./credits.ts";
export { CURRENCIES, minorDigitsOf } from "./currency.ts";
export { amountOfMinor, minorOfAmount } from "./money.ts";
export { rateBill } from "./rate-bill.ts";
export { rateItem } from "./rate-item.ts";
