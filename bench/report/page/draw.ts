/**
 * The page's one script: draws each figure at the width it has and again when that changes. Colours are CSS
 * variables, so light and dark need no new drawing; sizes are pixels, so text stays as large on a phone.
 *
 * It runs as an inlined module after the libraries (globals `d3`, `Plot`) and imports nothing, because a page
 * opened from a file can load nothing.
 */
import type * as PlotLibrary from '@observablehq/plot';
import type { Axis, Bar, Bars, Chart, Line, Lines } from './chart.ts';

declare const Plot: typeof PlotLibrary;

type Mark = PlotLibrary.Markish;

const charts: Readonly<Record<string, Chart>> = JSON.parse(
  document.getElementById('charts')?.textContent ?? '{}',
);

const redraw = new ResizeObserver((entries) => {
  // In the next frame: a drawing changes heights, and inside the observer that would be a loop.
  requestAnimationFrame(() => {
    for (const { target } of entries) draw(target);
  });
});
for (const place of document.querySelectorAll('[data-chart]')) redraw.observe(place);

function draw(place: Element): void {
  const chart = charts[place.getAttribute('data-chart') ?? ''];
  const width = Math.floor(place.clientWidth);
  if (chart === undefined || width === 0 || place.getAttribute('data-width') === String(width)) return;
  place.setAttribute('data-width', String(width));
  place.replaceChildren(chart.form === 'bars' ? drawBars(chart, width) : drawLines(chart, width));
}

/** Of the font in report.css: wide enough for its digits and lower case letters. */
const letterWidth = 6.9;

function textWidth(texts: readonly string[]): number {
  return Math.ceil(Math.max(0, ...texts.map((text) => text.length)) * letterWidth);
}

function drawBars({ rows, label, small }: Bars, width: number): Element {
  const drawn = rows.filter(hasValue);
  const whisker = { stroke: 'var(--whisker)', strokeWidth: 1.5 };
  const beside = { y: 'name', text: 'text', textAnchor: 'start', dx: 8 } as const;
  return Plot.plot({
    ariaLabel: label,
    width,
    height: rows.length * (small ? 20 : 26) + 12,
    marginLeft: textWidth(rows.map(({ name }) => name)) + 10,
    marginRight: textWidth(drawn.map(({ text }) => text)) + 14,
    marginTop: 6,
    marginBottom: 6,
    x: { axis: null, domain: [0, Math.max(...drawn.map(({ max }) => max), Number.MIN_VALUE)] },
    y: { domain: rows.map(({ name }) => name), label: null, tickSize: 0, padding: 0.3 },
    marks: [
      Plot.barX(drawn, {
        className: 'bar',
        x1: 0,
        x2: 'value',
        y: 'name',
        fill: ({ kind }: Bar) => `var(--${kind})`,
        title: 'tip',
        tip: true,
      }),
      Plot.ruleX([0], { stroke: 'var(--line)' }),
      Plot.ruleY(drawn, { className: 'whisker', x1: 'min', x2: 'max', y: 'name', ...whisker }),
      Plot.tickX(drawn, { x: 'min', y: 'name', inset: 4, ...whisker }),
      Plot.tickX(drawn, { x: 'max', y: 'name', inset: 4, ...whisker }),
      Plot.text(drawn, { className: 'value', x: 'max', ...beside }),
      Plot.text(
        rows.filter((row) => !hasValue(row)),
        { className: 'absent', x: 0, fill: 'var(--quiet)', ...beside },
      ),
    ],
  });
}

function hasValue(row: Bar): row is Bar & { value: number; min: number; max: number } {
  return row.value !== undefined;
}

/** One line with its points where they are drawn; `at` is what they were before. */
interface PlacedLine extends Line {
  readonly placed: readonly { readonly x: number; readonly y: number; readonly at: number }[];
}

function drawLines(chart: Lines, width: number): Element {
  const lines = chart.lines.map((line) => ({ ...line, placed: placed(chart.x, line) }));
  const xs = lines.flatMap((line) => line.placed.map(({ x }) => x));
  const ys = lines.flatMap((line) => line.placed.map(({ y }) => y));
  const marginRight = textWidth(lines.map(({ name }) => name)) + 22;
  const box = { width, height: Math.max(340, lines.length * lineOfText + 90), ...margins, marginRight };
  const x: Scale = {
    type: typeOf(chart.x),
    domain: xDomainOf(chart.x, xs),
    range: [margins.marginLeft, width - marginRight],
  };
  const y: Scale = {
    type: 'log',
    domain: [Math.min(...ys) * 0.85, Math.max(...ys) * 1.15],
    range: [box.height - margins.marginBottom, margins.marginTop],
  };
  return Plot.plot({
    ariaLabel: chart.label,
    ...box,
    x,
    y,
    marks: [
      ...xAxis(chart.x, x),
      ...yAxis(chart.y.label, y.domain),
      ...lines.flatMap((line) => marksOf(chart, line)),
      ...labels(lines, x, y),
    ],
  });
}

const margins = { marginTop: 28, marginBottom: 44, marginLeft: 52 };

/** As Plot takes it, with its ends known: names and ticks are placed by pixels. */
interface Scale {
  readonly type: 'linear' | 'log';
  readonly domain: number[];
  readonly range: number[];
}

function typeOf({ scale }: Axis): Scale['type'] {
  return scale === 'nines' ? 'linear' : 'log';
}

/** No place has zero on a logarithmic scale, nor the highest percentile, 100, which no number of nines reaches. */
function placed({ scale }: Axis, { points }: Line): PlacedLine['placed'] {
  return points
    .map(([at, y]) => ({ at, y, x: scale === 'nines' ? ninesOf(at) : at }))
    .filter(({ x, y }) => y > 0 && Number.isFinite(x));
}

function ninesOf(percentile: number): number {
  return -Math.log10(1 - percentile / 100);
}

/** With some room on the right for the threads from the lines' ends to their names. */
function xDomainOf(axis: Axis, values: readonly number[]): number[] {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return typeOf(axis) === 'linear'
    ? [low, high + (high - low) * threadShare]
    : [low, high * (high / low) ** threadShare];
}

const threadShare = 0.06;

/** The texts of both axes are given, for Plot leaves out some of a logarithmic one. */
function xAxis({ label, scale, ticks }: Axis, x: Scale): readonly Mark[] {
  const { apply } = Plot.scale({ x });
  const [low = 0, high = 0] = x.domain;
  const all = ticks.map((tick) => ({ at: scale === 'nines' ? ninesOf(tick) : tick, text: tickText(tick) }));
  const shown = thinned(
    all
      .filter(({ at }) => at >= low && at <= high)
      .map((tick) => ({ ...tick, pixel: apply(tick.at), room: textWidth([tick.text]) + 4 })),
  );
  const text = shown.map((tick) => tick.text);
  return [
    Plot.axisX(
      shown.map(({ at }) => at),
      { text, label, labelAnchor: 'center', labelArrow: 'none' },
    ),
  ];
}

function yAxis(label: string, domain: readonly number[]): readonly Mark[] {
  const ticks = oneTwoFive(domain);
  return [Plot.gridY(ticks), Plot.axisY(ticks, { text: ticks.map(tickText), label, labelArrow: 'none' })];
}

/** Those whose texts do not run into the one before. */
function thinned<T extends { pixel: number; room: number }>(ticks: readonly T[]): readonly T[] {
  const kept: T[] = [];
  let free = Number.NEGATIVE_INFINITY;
  for (const tick of ticks) {
    if (tick.pixel - tick.room / 2 < free) continue;
    kept.push(tick);
    free = tick.pixel + tick.room / 2;
  }
  return kept;
}

/** 1, 2 and 5 of every power of ten within the domain. */
function oneTwoFive([low = 1, high = 1]: readonly number[]): number[] {
  const powers = Array.from(
    { length: Math.ceil(Math.log10(high)) - Math.floor(Math.log10(low)) + 1 },
    (_, nth) => 10 ** (Math.floor(Math.log10(low)) + nth),
  );
  return powers
    .flatMap((power) => [power, 2 * power, 5 * power])
    .filter((tick) => tick >= low && tick <= high);
}

const tickFormat = new Intl.NumberFormat('en', { maximumSignificantDigits: 6 });

function tickText(value: number): string {
  return tickFormat.format(value);
}

/** Lines of one kind differ by their dashes, for a kind has one colour. */
const dashes = ['none', '7 3', '2 3', '9 3 2 3', '4 2', '1 4', '12 4', '6 2 1 2 1 2'];

function marksOf({ x, y, lines }: Lines, line: PlacedLine): readonly Mark[] {
  const nth = lines.filter(({ kind }) => kind === line.kind).findIndex(({ name }) => name === line.name);
  const stroke = `var(--${line.kind})`;
  const tip = (point: { at: number; y: number }) =>
    `${line.name}\n${x.label}: ${tickText(point.at)}\n${tickText(point.y)} ${y.label}`;
  return [
    Plot.line(line.placed, {
      className: 'line',
      x: 'x',
      y: 'y',
      stroke,
      strokeWidth: line.kind === 'dualport' ? 2.5 : 1.5,
      strokeDasharray: dashes[nth % dashes.length] ?? 'none',
    }),
    Plot.dot(line.placed, { x: 'x', y: 'y', r: 2.2, fill: stroke, title: tip, tip: true }),
  ];
}

const lineOfText = 14;

/** The name of each line right of its end, moved apart where ends are close, with a thread between the two. */
function labels(lines: readonly PlacedLine[], { domain }: Scale, y: Scale): readonly Mark[] {
  const scale = Plot.scale({ y });
  const right = domain[1] ?? 0;
  const [bottom = 0, top = 0] = y.range;
  const ends = lines
    .flatMap((line) => line.placed.slice(-1).map((end) => ({ ...end, line, pixel: scale.apply(end.y) })))
    .sort((a, b) => a.pixel - b.pixel);
  const wanted = ends.map(({ pixel }) => pixel);
  const apart = movedApart(wanted, top, bottom);
  return ends.flatMap(({ x, y, line }, nth) => {
    const to = scale.invert?.(apart[nth] ?? 0);
    const fontWeight = line.kind === 'dualport' ? 'bold' : 'normal';
    return [
      Plot.link([to], { x1: x, x2: right, y1: y, y2: to, stroke: `var(--${line.kind})`, strokeOpacity: 0.5 }),
      Plot.text([line.name], {
        className: 'name',
        x: right,
        y: to,
        text: [line.name],
        textAnchor: 'start',
        dx: 4,
        fill: `var(--${line.kind}-text)`,
        fontWeight,
      }),
    ];
  });
}

/**
 * Each at least a line of text below the one before, and all together as near to where they want to be as that
 * allows: with the distances taken out what is left must not fall, and where it does, neighbours share their
 * mean (isotonic regression by pooling).
 */
function movedApart(wanted: readonly number[], top: number, bottom: number): readonly number[] {
  const pools: { mean: number; size: number }[] = [];
  for (const [nth, at] of wanted.entries()) {
    let pool = { mean: at - nth * lineOfText, size: 1 };
    for (let last = pools.at(-1); last !== undefined && last.mean > pool.mean; last = pools.at(-1)) {
      pools.pop();
      const size = last.size + pool.size;
      pool = { mean: (last.mean * last.size + pool.mean * pool.size) / size, size };
    }
    pools.push(pool);
  }
  const lowest = bottom - (wanted.length - 1) * lineOfText;
  return pools
    .flatMap(({ mean, size }) => Array<number>(size).fill(Math.max(top, Math.min(mean, lowest))))
    .map((at, nth) => at + nth * lineOfText);
}
