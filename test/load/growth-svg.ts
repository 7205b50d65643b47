/** Draws what grows, and what does not, with the number of usage events. */

/** One step, as bench:query says it. */
export interface GrowthStep {
  readonly events: number;
  readonly storedPerSecond: number;
  readonly peakRssMegabytes: number;
  readonly diskBytesPerEvent: number;
  readonly mergedMonthByHourP50Ms: number;
  readonly mergedMonthByHourP95Ms: number;
  readonly ingestMonthByHourP50Ms: number;
  readonly ingestMonthByHourP95Ms: number;
  readonly mergedBillP95Ms: number;
  readonly mergedTopCustomersP50Ms: number;
}

interface Line {
  readonly name: string;
  readonly color: string;
  readonly of: (step: GrowthStep) => number;
}

interface Panel {
  readonly title: string;
  readonly unit: string;
  readonly lines: readonly Line[];
}

const PANELS: readonly Panel[] = [
  {
    title: "One customer’s month by hour, p95",
    unit: "milliseconds",
    lines: [
      { name: "everything merged", color: "#1f6f8b", of: (step) => step.mergedMonthByHourP95Ms },
      { name: "during inserts", color: "#d1603d", of: (step) => step.ingestMonthByHourP95Ms },
    ],
  },
  {
    title: "All customers of a month, p50",
    unit: "milliseconds",
    lines: [{ name: "ten largest customers", color: "#1f6f8b", of: (step) => step.mergedTopCustomersP50Ms }],
  },
  {
    title: "Disk after merges, all tables",
    unit: "bytes per usage event",
    lines: [{ name: "bytes per usage event", color: "#1f6f8b", of: (step) => step.diskBytesPerEvent }],
  },
  {
    title: "Stored per second, by SQL",
    unit: "usage events per second",
    lines: [{ name: "usage events per second", color: "#1f6f8b", of: (step) => step.storedPerSecond }],
  },
];

const WIDTH = 960;
const PANEL = { width: 480, height: 300, left: 72, right: 24, top: 56, bottom: 56 };
const FONT = "font-family='system-ui, sans-serif'";

/** A picture of four panels: the number of usage events to the right, on a logarithmic axis; every value axis begins at 0. */
export function growthSvg(steps: readonly GrowthStep[]): string {
  const height = Math.ceil(PANELS.length / 2) * PANEL.height;
  const panels = PANELS.map((panel, index) => {
    const x = (index % 2) * PANEL.width;
    const y = Math.floor(index / 2) * PANEL.height;
    return `<g transform='translate(${x} ${y})'>${panelSvg(panel, steps)}</g>`;
  });
  return `<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 ${WIDTH} ${height}' width='${WIDTH}' height='${height}' role='img' aria-label='What grows with the number of usage events' ${FONT}>
<rect width='100%' height='100%' fill='#ffffff'/>
${panels.join("\n")}
</svg>
`;
}

function panelSvg({ title, unit, lines }: Panel, steps: readonly GrowthStep[]): string {
  const counts = steps.map(({ events }) => Math.log10(events));
  const first = Math.min(...counts);
  const last = Math.max(...counts);
  const top = niceCeiling(Math.max(...lines.flatMap(({ of }) => steps.map(of))));
  const right = PANEL.width - PANEL.right;
  const bottom = PANEL.height - PANEL.bottom;
  const x = (events: number): number =>
    last === first
      ? (PANEL.left + right) / 2
      : PANEL.left + 16 + ((Math.log10(events) - first) / (last - first)) * (right - PANEL.left - 32);
  const y = (value: number): number => bottom - (value / top) * (bottom - PANEL.top);
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) => share * top);
  const grid = ticks.map(
    (tick) =>
      `<line x1='${PANEL.left}' x2='${right}' y1='${at(y(tick))}' y2='${at(y(tick))}' stroke='${tick === 0 ? "#5b6770" : "#e3e7ea"}'/>` +
      `<text x='${PANEL.left - 8}' y='${at(y(tick) + 4)}' font-size='12' text-anchor='end' fill='#5b6770'>${short(tick)}</text>`,
  );
  const marks = steps.map(
    ({ events }) =>
      `<line x1='${at(x(events))}' x2='${at(x(events))}' y1='${bottom}' y2='${bottom + 4}' stroke='#5b6770'/>` +
      `<text x='${at(x(events))}' y='${bottom + 18}' font-size='12' text-anchor='middle' fill='#5b6770'>${short(events)}</text>`,
  );
  const drawn = lines.map(({ color, of }, index) => {
    const points = steps.map((step) => `${at(x(step.events))},${at(y(of(step)))}`);
    const dots = steps.map(
      (step) =>
        `<circle cx='${at(x(step.events))}' cy='${at(y(of(step)))}' r='3.5' fill='${color}'/>` +
        `<text x='${at(x(step.events))}' y='${at(y(of(step)) - 8)}' font-size='11' text-anchor='middle' fill='${color}'>${short(of(step))}</text>`,
    );
    return `<polyline points='${points.join(" ")}' fill='none' stroke='${color}' stroke-width='2'${index > 0 ? " stroke-dasharray='6 4'" : ""}/>${dots.join("")}`;
  });
  const legend =
    lines.length < 2
      ? []
      : lines.map(
          ({ name, color }, index) =>
            `<text x='${right - index * 130}' y='40' font-size='12' text-anchor='end' fill='${color}'>${name}</text>`,
        );
  return [
    `<text x='${PANEL.left}' y='22' font-size='15' font-weight='600' fill='#1c2429'>${title}</text>`,
    `<text x='${PANEL.left}' y='40' font-size='12' fill='#5b6770'>${unit}</text>`,
    ...legend,
    ...grid,
    ...marks,
    ...drawn,
    `<text x='${(PANEL.left + right) / 2}' y='${bottom + 40}' font-size='12' text-anchor='middle' fill='#5b6770'>usage events in the month</text>`,
  ].join("\n");
}

/** The next number of 1, 2, 4, 5, 8 and 10 times a power of ten. */
function niceCeiling(value: number): number {
  const power = 10 ** Math.floor(Math.log10(Math.max(value * 1.1, 1e-9)));
  return ([1, 2, 4, 5, 8, 10].find((factor) => factor * power >= value * 1.1) ?? 10) * power;
}

/** 1,500,000 as 1.5 M, 12.34 as 12.3. */
function short(value: number): string {
  if (value >= 1e6) return `${Number((value / 1e6).toFixed(1))} M`;
  if (value >= 10_000) return `${Math.round(value / 1e3)} k`;
  if (value >= 100) return Math.round(value).toLocaleString("en");
  return String(Number(value.toFixed(1)));
}

function at(coordinate: number): string {
  return String(Number(coordinate.toFixed(1)));
}
