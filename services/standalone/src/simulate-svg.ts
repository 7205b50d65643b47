/** The distribution of a what-if as a picture: bars of customers by the change of their bill, one block for each currency. Pure. */
import type { CurrencySummary, SimulationLine } from "@tallyhouse/billing";

const WIDTH = 760;
const HEAD = { height: 56 };
const ROW = { height: 26, bar: 18 };
const COLUMN = { label: 150, bars: 160, barsWidth: 360, sums: 744 };
const BLOCK_GAP = 72;
const FONT = "font-family='system-ui, sans-serif'";
const COLORS = { less: "#1f6f8b", same: "#7a8790", more: "#b4532a", text: "#1c2429", quiet: "#4a565e" } as const;
/** The bucket in the middle: those before it pay less, those behind it more. */
const UNCHANGED = "unchanged";

/** An SVG document, the same for the same figures. Bars are whole tenths of a pixel, so that no float's digits stand in it. */
export function simulationSvg(
  span: { readonly from: string; readonly to: string },
  { currencies }: Extract<SimulationLine, { kind: "summary" }>,
): string {
  const title = `Customers by the change of their bill, periods that begin from ${span.from} to ${span.to}`;
  const blocks: string[] = [];
  let y = HEAD.height;
  for (const summary of currencies) {
    blocks.push(blockSvg(summary, y));
    y += BLOCK_GAP + summary.distribution.length * ROW.height;
  }
  if (currencies.length === 0) {
    blocks.push(text({ x: 16, y: y + 16, fontPx: 13, fill: COLORS.quiet }, "no period of any customer begins there"));
    y += 40;
  }
  return `<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${y}" width="${WIDTH}" height="${y}" role="img" ${FONT}>
<title>${escaped(title)}</title>
<rect width="100%" height="100%" fill="#ffffff"/>
${text({ x: 16, y: 26, fontPx: 16, weight: 600 }, "Customers by the change of their bill")}
${text({ x: 16, y: 46, fontPx: 12, fill: COLORS.quiet }, `periods that begin from ${span.from} to ${span.to}`)}
${blocks.join("\n")}
</svg>
`;
}

function blockSvg({ currency, customers, before, after, change, distribution }: CurrencySummary, top: number): string {
  const largest = Math.max(1, ...distribution.map((bucket) => bucket.customers));
  const middle = distribution.findIndex(({ bucket }) => bucket === UNCHANGED);
  const head = `${currency.toUpperCase()}: ${customers} customers, ${before} → ${after} (${signed(change)})`;
  const rows = distribution.map(({ bucket, customers: count, change: sum }, index) => {
    const y = top + 44 + index * ROW.height;
    const tenths = Math.floor((count * COLUMN.barsWidth * 10) / largest);
    // A bucket with anybody in it can be seen.
    const width = count === 0 ? 0 : Math.max(20, tenths);
    const fill = index === middle ? COLORS.same : index < middle ? COLORS.less : COLORS.more;
    const label = `${bucket}: ${count} customers, ${signed(sum)} ${currency}`;
    const baseline = y + 14;
    return [
      `<g><title>${escaped(label)}</title>`,
      text({ x: COLUMN.label, y: baseline, fontPx: 12, anchor: "end" }, bucket),
      `<rect x="${COLUMN.bars}" y="${y}" width="${pixels(width)}" height="${ROW.bar}" rx="2" fill="${fill}"/>`,
      text({ x: pixels(COLUMN.bars * 10 + width + 60), y: baseline, fontPx: 12 }, String(count)),
      text({ x: COLUMN.sums, y: baseline, fontPx: 12, anchor: "end", fill: COLORS.quiet }, signed(sum)),
      "</g>",
    ].join("");
  });
  return [
    text({ x: 16, y: top + 14, fontPx: 14, weight: 600 }, head),
    text({ x: COLUMN.bars, y: top + 34, fontPx: 11, fill: COLORS.quiet }, "customers"),
    text({ x: COLUMN.sums, y: top + 34, fontPx: 11, anchor: "end", fill: COLORS.quiet }, "sum of changes"),
    ...rows,
  ].join("\n");
}

function text(
  at: {
    readonly x: number | string;
    readonly y: number;
    readonly fontPx: number;
    readonly weight?: number;
    readonly anchor?: "end";
    readonly fill?: string;
  },
  content: string,
): string {
  const { x, y, fontPx, weight, anchor, fill = COLORS.text } = at;
  const more = `${weight === undefined ? "" : ` font-weight="${weight}"`}${anchor === undefined ? "" : ` text-anchor="${anchor}"`}`;
  return `<text x="${x}" y="${y}" font-size="${fontPx}"${more} fill="${fill}">${escaped(content)}</text>`;
}

/** Tenths of a pixel as decimal text. */
function pixels(tenths: number): string {
  return `${Math.floor(tenths / 10)}.${tenths % 10}`;
}

function signed(amount: string): string {
  return amount.startsWith("-") || /^0(?:\.0+)?$/.test(amount) ? amount : `+${amount}`;
}

function escaped(content: string): string {
  return content.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}
