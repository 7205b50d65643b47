/** Which currencies can be billed, and how many fraction digits their amounts have. */

/**
 * Fraction digits of each currency's minor unit, as ISO 4217 and Stripe both have it; where they differ (mga: 2 and 0), as Stripe, which
 * could not charge the fraction.
 *
 * Left out, so refused: isk and ugx, which have no minor unit, but which Stripe writes with two digits that must be 00. An amount in minor
 * units would mean one thing here and another there.
 *
 * A table and not `Intl`: an update of Node must not change a bill.
 * @see https://docs.stripe.com/currencies (zero-decimal and three-decimal lists, special cases; read 2026-11-22)
 * @see https://www.six-group.com/en/products-services/financial-information/data-standards.html (ISO 4217, list one)
 */
const CODES_OF_DIGITS = {
  0: "bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf",
  2:
    "aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bmd bnd bob brl bsd bwp byn bzd cad cdf chf cny cop crc cve czk dkk dop dzd " +
    "egp etb eur fjd fkp gbp gel gip gmd gtq gyd hkd hnl htg huf idr ils inr jmd kes kgs khr kyd kzt lak lbp lkr lrd lsl mad mdl mkd mmk " +
    "mnt mop mur mvr mwk mxn myr mzn nad ngn nio nok npr nzd pab pen pgk php pkr pln qar ron rsd rub sar sbd scr sek sgd shp sle sos srd " +
    "szl thb tjs top try ttd twd tzs uah usd uyu uzs wst xcd yer zar zmw",
  3: "bhd jod kwd omr tnd",
} as const;

const DIGITS_OF_CODE: ReadonlyMap<string, number> = new Map(
  Object.entries(CODES_OF_DIGITS).flatMap(([digits, codes]) => codes.split(" ").map((code) => [code, Number(digits)])),
);

/** Every code that can be billed, in lower case, sorted. */
export const CURRENCIES: readonly string[] = [...DIGITS_OF_CODE.keys()].toSorted();

/** Fraction digits of the currency's minor unit: 0, 2 or 3; null when the code is unknown (codes are lower case). */
export function minorDigitsOf(currency: string): number | null {
  return DIGITS_OF_CODE.get(currency) ?? null;
}
