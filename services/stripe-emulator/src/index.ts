export type { Clock } from "./clock.ts";
export { startStripeEmulator, type StripeEmulator, type StripeEmulatorOptions } from "./start.ts";
export type { IdentifierMemory, Mode } from "./state.ts";
export type { Truth, TruthEvent, TruthObject, TruthTotal } from "./truth.ts";
