/** The operator's page: a pure function from figures to HTML. No script, no request beyond itself. */
import { formatInstant } from "@tallyhouse/domain";
import { groupDigits, niceCeiling, shortNumber, shortSpan } from "./figures.ts";
import { type Markup, markup, ownMarkup, renderMarkup } from "./markup.ts";
import { PAGE_STYLE } from "./page-style.ts";
import type { PipelineStatus } from "./status.ts";

/** Age of the watermark from which the page warns, and from which it alarms (edge.md §6.2). */
const AMBER_AFTER_MS = 60_000;
const RED_AFTER_MS = 300_000;

export interface PageMeter {
  readonly key: string;
  readonly version: number;
  readonly state: "active" | "pending";
  readonly aggregation: string;
  readonly eventType: string;
  readonly unit: string;
  readonly dimensions: readonly string[];
}

/** Usage of the chosen meter over the last days. */
export interface PageUsage {
  readonly meter: string;
  readonly unit: string;
  readonly customer: string | null;
  /** Exact decimal text; null when there is nothing to show (the smallest of no usage). */
  readonly total: string | null;
  /** One entry per day, oldest first, `day` as `2026-11-20`; null where nothing was measured. */
  readonly days: readonly { readonly day: string; readonly quantity: string | null }[];
  readonly customers: readonly { readonly customer: string; readonly quantity: string }[];
  /** Usage in front of the meter's activation is still being counted: the figures grow. */
  readonly isBackfilling: boolean;
}

export interface PageInput {
  readonly mode: "live" | "test";
  readonly now: number;
  /** null: the browser does not load the page again by itself. */
  readonly refreshSeconds: number | null;
  readonly status: PipelineStatus;
  readonly meters: readonly PageMeter[];
  /** null when there is no active meter yet. */
  readonly usage: PageUsage | null;
}

interface View {
  readonly mode: string;
  readonly meter?: string | undefined;
  readonly customer?: string | null;
  readonly isPaused: boolean;
}

/** The whole document. */
export function renderPage(input: PageInput): string {
  const { mode, refreshSeconds, status, usage, meters, now } = input;
  const view: View = {
    mode,
    meter: usage?.meter,
    customer: usage?.customer ?? null,
    isPaused: refreshSeconds === null,
  };
  const refresh = refreshSeconds === null ? null : markup`<meta http-equiv="refresh" content="${refreshSeconds}" />`;
  return renderMarkup(markup`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
${refresh}
<title>Tallyhouse</title>
<style>${ownMarkup(PAGE_STYLE)}</style>
</head>
<body>
<header>
<h1>Tallyhouse</h1>
<nav aria-label="Mode">${modeLink(view, "live")}${modeLink(view, "test")}</nav>
<span class="fresh">${freshness(status.watermarkAt, now)}</span>
</header>
<main>
${tiles(status, now)}
${usage === null ? markup`<section><div><h2>No active meter in mode ${mode}</h2></div><p class="soft">Apply a meters file: tallyhouse meters apply meters.yaml</p></section>` : usageSection(usage, view)}
<div class="two">
${metersSection(meters, view)}
${customersSection(usage, view)}
</div>
</main>
<footer>
<span>${formatInstant(now - (now % 1_000))}</span>
<a href="${linkTo({ ...view, isPaused: !view.isPaused })}">${view.isPaused ? "Resume updates" : "Pause updates"}</a>
</footer>
</body>
</html>
`);
}

function linkTo(view: View): string {
  const parameters = new URLSearchParams({ mode: view.mode });
  if (view.meter !== undefined) parameters.set("meter", view.meter);
  if (typeof view.customer === "string") parameters.set("customer", view.customer);
  if (view.isPaused) parameters.set("refresh", "off");
  return `?${parameters.toString()}`;
}

function modeLink(view: View, mode: string): Markup {
  const href = linkTo({ mode, meter: view.meter, isPaused: view.isPaused });
  return view.mode === mode
    ? markup`<a href="${href}" aria-current="page">${mode}</a>`
    : markup`<a href="${href}">${mode}</a>`;
}

/** How the age of the watermark is judged: class, sign, word. Colour alone says nothing to many. */
function levelOf(ageMs: number): readonly [string, string, string] {
  if (ageMs > RED_AFTER_MS) return ["bad", "■", "stale"];
  return ageMs > AMBER_AFTER_MS ? ["warn", "▲", "late"] : ["ok", "●", "fresh"];
}

function freshness(watermarkAt: number | null, now: number): Markup {
  if (watermarkAt === null) return markup`<span class="warn">▲ waiting for the first records</span>`;
  const ageMs = now - watermarkAt;
  const [level, sign, word] = levelOf(ageMs);
  const clock = formatInstant(watermarkAt - (watermarkAt % 1_000)).slice(11, 19);
  return markup`<span class="${level}">${sign} ${word}</span> <span class="soft">counted up to ${clock} UTC, ${shortSpan(ageMs)} ago</span>`;
}

function tiles(status: PipelineStatus, now: number): Markup {
  const { watermarkAt } = status;
  const stuck = status.stuck === 0 ? "meter events" : `meter events, ${groupDigits(String(status.stuck))} stuck`;
  const outbox = status.outbox === 0 ? null : markup`<dd class="warn">${status.outbox} control records unsent</dd>`;
  const ageText = watermarkAt === null ? "–" : shortSpan(now - watermarkAt);
  const level = watermarkAt === null ? "warn" : levelOf(now - watermarkAt)[0];
  return markup`<dl class="tiles">
<div><dt>Counted</dt><dd>${groupDigits(String(status.counted))}</dd><dd>usage events</dd></div>
<div><dt>Waiting</dt><dd>${groupDigits(String(status.waiting))}</dd><dd>records in the log</dd>${outbox}</div>
<div><dt>Due</dt><dd>${groupDigits(String(status.due))}</dd><dd>not yet at Stripe</dd></div>
<div><dt>At Stripe</dt><dd>${groupDigits(String(status.atStripe))}</dd><dd class="${status.stuck === 0 ? "" : "bad"}">${stuck}</dd></div>
<div><dt>Watermark age</dt><dd class="${level}">${ageText}</dd><dd>slowest partition</dd></div>
</dl>`;
}

function usageSection(usage: PageUsage, view: View): Markup {
  const who =
    usage.customer === null
      ? markup`<span class="soft">all customers, 30 days</span>`
      : markup`<span class="name">${usage.customer}</span> <a class="soft" href="${linkTo({ ...view, customer: null })}">show all customers</a>`;
  const rows = [...usage.days].reverse().map(
    ({
      day,
      quantity,
    }) => markup`<tr><td>${day}</td><td class="n">${quantity === null ? "–" : groupDigits(quantity)}</td></tr>
`,
  );
  const growing = usage.isBackfilling
    ? markup` <span class="warn">▲ earlier usage is still being counted</span>`
    : null;
  return markup`<section>
<div><h2>${usage.meter}</h2>${who}${growing}<span class="total">${usage.total === null ? "–" : groupDigits(usage.total)} <span class="soft">${usage.unit}</span></span></div>
${plot(usage)}
<details><summary>Daily figures</summary><table><thead><tr><th scope="col">Day (UTC)</th><th scope="col" class="n">${usage.unit}</th></tr></thead>
<tbody>${rows}</tbody></table></details>
</section>`;
}

const PLOT_HEIGHT = 100;
const BAR_PITCH = 10;
const BAR_WIDTH = 7.5;

/** Bars are stretched to the panel's width, so all text stands outside the drawing. */
function plot(usage: PageUsage): Markup {
  const values = usage.days.map(({ quantity }) => Number(quantity ?? 0));
  const top = niceCeiling(Math.max(0, ...values));
  const lowest = Math.min(0, ...values);
  const bottom = lowest < 0 ? -niceCeiling(-lowest) : 0;
  const yOf = (value: number): number => (PLOT_HEIGHT * (top - value)) / (top - bottom);
  const width = BAR_PITCH * usage.days.length;
  const bars = usage.days.map(({ day, quantity }, index) => {
    const value = values[index] ?? 0;
    const [y, baseY] = [yOf(Math.max(0, value)), yOf(Math.min(0, value))];
    const x = index * BAR_PITCH + (BAR_PITCH - BAR_WIDTH) / 2;
    const mark = index === usage.days.length - 1 ? "today" : "day";
    const text = `${day}: ${quantity === null ? "nothing" : `${groupDigits(quantity)} ${usage.unit}`}`;
    return markup`<rect class="${mark}" x="${x}" y="${y.toFixed(2)}" width="${BAR_WIDTH}" height="${(baseY - y).toFixed(2)}"><title>${text}</title></rect>
`;
  });
  const lines = [top, (top + bottom) / 2, bottom].map((value) => {
    const y = yOf(value).toFixed(2);
    return markup`<line x1="0" x2="${width}" y1="${y}" y2="${y}" />`;
  });
  const days = usage.days.map(({ day }) => day.slice(5));
  const name = `${usage.meter} per day, last ${usage.days.length} days; the figures are in the table below`;
  return markup`<div class="plot">
<div class="scale" aria-hidden="true"><span>${shortNumber(top)}</span><span>${shortNumber((top + bottom) / 2)}</span><span>${shortNumber(bottom)}</span></div>
<svg role="img" aria-label="${name}" viewBox="0 0 ${width} ${PLOT_HEIGHT}" preserveAspectRatio="none">${lines}${bars}</svg>
<div class="days" aria-hidden="true"><span>${days[0] ?? ""}</span><span>${days[Math.floor((days.length - 1) / 2)] ?? ""}</span><span>today</span></div>
</div>`;
}

function customersSection(usage: PageUsage | null, view: View): Markup | null {
  if (usage === null) return null;
  const largest = Math.max(...usage.customers.map(({ quantity }) => Math.abs(Number(quantity))), 0);
  const rows = usage.customers.map(({ customer, quantity }) => {
    const share = largest === 0 ? 0 : (100 * Math.abs(Number(quantity))) / largest;
    return markup`<tr><td class="name"><a href="${linkTo({ ...view, customer })}">${customer}</a>
<svg class="share" aria-hidden="true" viewBox="0 0 100 1" preserveAspectRatio="none"><rect width="100" height="1" /><rect width="${share.toFixed(1)}" height="1" /></svg></td><td class="n">${groupDigits(quantity)}</td></tr>
`;
  });
  const empty = markup`<p class="soft">No usage in the last 30 days.</p>`;
  const table = markup`<table><thead><tr><th scope="col">Customer</th><th scope="col" class="n">${usage.unit}</th></tr></thead><tbody>${rows}</tbody></table>`;
  return markup`<section><div><h2>Customers</h2><span class="soft">most ${usage.meter}, 30 days</span></div>${rows.length === 0 ? empty : table}</section>`;
}

function metersSection(meters: readonly PageMeter[], view: View): Markup {
  const rows = meters.map((meter) => {
    const link = linkTo({ ...view, meter: meter.key });
    const name = meter.state === "active" ? markup`<a href="${link}">${meter.key}</a>` : markup`${meter.key}`;
    const about = [`version ${meter.version}`, ...meter.dimensions.map((dimension) => `by ${dimension}`)].join(", ");
    const state =
      meter.state === "active" ? markup`<span class="ok">● active</span>` : markup`<span class="warn">▲ pending</span>`;
    return markup`<tr><td class="name">${name}<br><span class="soft">${about}</span></td><td class="name">${meter.aggregation} of ${meter.eventType}<br><span class="soft">in ${meter.unit}</span></td><td class="n">${state}</td></tr>
`;
  });
  return markup`<section><div><h2>Meters</h2></div><div class="wide"><table><thead><tr><th scope="col">Meter</th><th scope="col">Counts</th><th scope="col" class="n">State</th></tr></thead><tbody>${rows}</tbody></table></div></section>`;
}
