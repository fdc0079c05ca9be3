/** The figures of one world, group by group and workload by workload, each also as a table. */
import type { MetricRecord, SubjectRecord, WorkloadRecord } from '../results.ts';
import { barsOf, latencyCurves, portLines } from './figures.ts';
import { type Content, html, type Markup, nothing } from './markup.ts';
import type { Chart, Lines } from './page/chart.ts';
import { betterText, cellText, counted, figure, listed, metricText } from './wording.ts';
import { absenceOf, cellOf, type World } from './worlds.ts';

/** Puts a chart on the page: gives the place it is drawn in. */
export type Draw = (chart: Chart) => Markup;

const groupTitles: readonly (readonly [group: WorkloadRecord['group'], title: string])[] = [
  ['bulk', 'Bulk transfer'],
  ['requests', 'Requests and answers'],
  ['latency', 'Latency'],
  ['connections', 'New connections'],
  ['udp', 'UDP'],
  ['memory', 'Memory'],
  ['start-up', 'Start-up and published ports'],
];

export function groupsOf(
  world: World,
): readonly { readonly id: string; readonly title: string; readonly workloads: readonly WorkloadRecord[] }[] {
  return groupTitles
    .map(([group, title]) => ({
      id: `${world.id}-${group}`,
      title,
      workloads: world.workloads.filter((workload) => workload.group === group),
    }))
    .filter(({ workloads }) => workloads.length > 0);
}

export function groupSections(
  world: World,
  subjects: readonly SubjectRecord[],
  draw: Draw,
): readonly Markup[] {
  const drawn = subjects.filter(({ missing }) => missing === undefined);
  return groupsOf(world).map(
    ({ id, title, workloads }) => html`
<section id="${id}">
<h3>${title}</h3>
${portFigures(world, drawn, workloads, draw)}
${workloads.map((workload) => card(world, subjects, drawn, workload, draw))}
</section>`,
  );
}

function card(
  world: World,
  subjects: readonly SubjectRecord[],
  drawn: readonly SubjectRecord[],
  workload: WorkloadRecord,
  draw: Draw,
): Markup {
  // User and kernel memory are two halves of one figure; elsewhere the first metric is the one that counts.
  const [first, ...others] = workload.metrics;
  const bars = (metric: MetricRecord, small: boolean) =>
    barFigure(metric, draw(barsOf(world, drawn, workload, metric, small)));
  const sideBySide = workload.group === 'memory' ? workload.metrics : others;
  return html`
<article class="card">
<h4>${workload.title}</h4>
<p class="quiet">${workload.method}</p>
${workload.group === 'memory' || first === undefined ? nothing : bars(first, false)}
${curveFigure(world, drawn, workload, draw)}
<div class="grid">${sideBySide.map((metric) => bars(metric, true))}</div>
${inDetails('As a table', cellTable(world, subjects, workload))}
</article>`;
}

function barFigure(metric: MetricRecord, chart: Markup): Markup {
  return html`<figure><figcaption><strong>${metricText(metric)}</strong> · ${betterText(metric)}</figcaption>${chart}</figure>`;
}

function curveFigure(
  world: World,
  subjects: readonly SubjectRecord[],
  workload: WorkloadRecord,
  draw: Draw,
): Markup {
  const chart = latencyCurves(world, subjects, workload);
  if (chart === undefined) return nothing;
  const caption = html`<strong>Latency by percentile, µs</strong> · lower is better · median of the rounds at each percentile; both scales logarithmic, so the highest value of all is in the table only`;
  return html`${lineFigure(caption, chart, subjects, draw)}${inDetails('Percentiles as a table', lineTable(chart, 'percentile'))}`;
}

function portFigures(
  world: World,
  subjects: readonly SubjectRecord[],
  workloads: readonly WorkloadRecord[],
  draw: Draw,
): Markup {
  const [first] = workloads;
  if (first?.group !== 'start-up') return nothing;
  const figures = first.metrics.flatMap((metric) => {
    const chart = portLines(world, subjects, metric);
    if (chart === undefined) return [];
    const caption = html`<strong>${metricText(metric)}</strong> · ${betterText(metric)}`;
    return [
      html`<div>${lineFigure(caption, chart, subjects, draw)}${inDetails('As a table', lineTable(chart, 'ports'))}</div>`,
    ];
  });
  if (figures.length === 0) return nothing;
  return html`<article class="card"><h4>By number of published ports</h4><p class="quiet">Median of the rounds; both scales logarithmic.</p><div class="grid wide">${figures}</div></article>`;
}

function lineFigure(caption: Content, chart: Lines, subjects: readonly SubjectRecord[], draw: Draw): Markup {
  const drawn = chart.lines.map(({ name }) => name);
  const others = subjects.filter(({ name }) => !drawn.includes(name)).map(({ name }) => name);
  const absent = others.length === 0 ? '' : ` · nothing to draw of ${listed(others)}`;
  return html`<figure><figcaption>${caption}${absent}</figcaption>${draw(chart)}</figure>`;
}

export function inDetails(summary: string, content: Content): Markup {
  return html`<details><summary>${summary}</summary>${content}</details>`;
}

/** A wide table moves in its own box, which the keyboard can reach. */
export function inScroll(label: string, table: Markup): Markup {
  return html`<div class="scroll" tabindex="0" role="region" aria-label="${label}">${table}</div>`;
}

function cellTable(world: World, subjects: readonly SubjectRecord[], workload: WorkloadRecord): Markup {
  const { metrics, title } = workload;
  return inScroll(
    `Table: ${title}`,
    html`<table>
<caption>Median of the rounds [lowest–highest]</caption>
<thead><tr><th scope="col">subject</th><th scope="col">rounds</th>${metrics.map((metric) => html`<th scope="col">${metricText(metric)}</th>`)}</tr></thead>
<tbody>${subjects.map((subject) => cellRow(world, subject, workload))}</tbody>
</table>`,
  );
}

function cellRow(world: World, { name, missing }: SubjectRecord, workload: WorkloadRecord): Markup {
  const cells = workload.metrics.map((metric) => cellOf(world, workload.name, metric.name, name));
  const rounds = Math.max(...cells.map((cell) => cell?.rounds ?? 0));
  if (rounds > 0) {
    const figures = cells.map(
      (cell) => html`<td class="figures">${cell === undefined ? '–' : cellText(cell)}</td>`,
    );
    return html`<tr><th scope="row">${name}</th><td>${rounds}</td>${figures}</tr>`;
  }
  const { word, reason } =
    missing === undefined ? absenceOf(world, workload, name) : { word: 'missing', reason: missing };
  const text = reason === '' ? word : `${word}: ${reason}`;
  return html`<tr><th scope="row">${name}</th><td>0</td><td colspan="${cells.length}">${text}</td></tr>`;
}

function lineTable({ lines, label, y }: Lines, noun: string): Markup {
  const columns = [...new Set(lines.flatMap(({ points }) => points.map(([x]) => x)))].sort((a, b) => a - b);
  return inScroll(
    `Table: ${label}`,
    html`<table>
<caption>${y.label} by ${noun}; of ${counted(lines.length, 'subject')}</caption>
<thead><tr><th scope="col">subject</th>${columns.map((x) => html`<th scope="col">${x}</th>`)}</tr></thead>
<tbody>${lines.map(({ name, points }) => {
      const at = new Map(points);
      const figures = columns.map((x) => html`<td>${at.has(x) ? figure(at.get(x) ?? 0) : '–'}</td>`);
      return html`<tr><th scope="row">${name}</th>${figures}</tr>`;
    })}</tbody>
</table>`,
  );
}
