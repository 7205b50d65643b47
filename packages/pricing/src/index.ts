export type { Bill, BillLine, DecimalText, ItemTotal, Price, RatedItem, RatedPlan, Tier, TierPart } from "./bill.ts";
