/**
 * The ratios of one world as tables: each dualport subject against all others, and the peers against the
 * bounds. Every ratio of the file stands in exactly one cell.
 */
import type { Ratio, Results, SubjectRecord, WorkloadRecord } from '../results.ts';
import { html, type Markup, nothing } from './markup.ts';
import { betterText, intervalName, intervalText, ratioFigure } from './wording.ts';
import { inDetails, inScroll } from './workload-cards.ts';
import type { World } from './worlds.ts';

interface Column {
  readonly title: string;
  readonly subject: string;
  readonly against: string;
}

export function ratioSection(world: World, { subjects, rounds }: Results): Markup {
  const present = subjects.filter(({ missing }) => missing === undefined);
  const ours = present.filter(({ kind }) => kind === 'dualport');
  const peers = present.filter(({ kind }) => kind === 'peer');
  const bounds = present.filter(({ kind }) => kind === 'bound');
  if (ours.length + peers.length * bounds.length === 0) return nothing;
  return html`
<section id="${world.id}-ratios">
<h3>Ratios, round by round</h3>
<p>A cell is one subject divided by another in the same round: the median of the rounds, the
${intervalName(rounds)} in brackets, and what it means in a word. Above 1 is more of the metric, which is better or worse as the row says.
<em>No difference</em>: the interval holds 1, or there were too few rounds. <em>–</em>: no round in which both have
a value to divide.</p>
${ours.map((subject) => ourTable(world, subject, [...bounds, ...peers, ...ours]))}
${
  peers.length === 0 || bounds.length === 0
    ? nothing
    : inDetails(
        'What the peers cost against the bounds',
        bounds.map((bound) => boundTable(world, bound, peers)),
      )
}
</section>`;
}

function ourTable(world: World, { name }: SubjectRecord, others: readonly SubjectRecord[]): Markup {
  const columns = others
    .filter((other) => other.name !== name)
    .map((other) => ({ title: `÷ ${other.name}`, subject: name, against: other.name }));
  return ratioTable(world, `${name} divided by the subject of the column`, columns);
}

function boundTable(world: World, bound: SubjectRecord, peers: readonly SubjectRecord[]): Markup {
  const columns = peers.map(({ name }) => ({ title: name, subject: name, against: bound.name }));
  return ratioTable(world, `The subject of the column divided by ${bound.name}`, columns);
}

function ratioTable(world: World, title: string, columns: readonly Column[]): Markup {
  const heads = columns.map(({ title }) => html`<th scope="col">${title}</th>`);
  const table = html`<table class="ratios">
<thead><tr><th scope="col" class="corner">metric</th>${heads}</tr></thead>
${world.workloads.map((workload) => workloadRows(world, workload, columns))}
</table>`;
  return html`<h4>${title}</h4>${inScroll(`Table: ${title}`, table)}`;
}

function workloadRows(world: World, workload: WorkloadRecord, columns: readonly Column[]): Markup {
  const rows = workload.metrics.map((metric) => {
    const cells = columns.map(({ subject, against }) =>
      ratioCell(
        world.ratios.find(
          (ratio) =>
            ratio.workload === workload.name &&
            ratio.metric === metric.name &&
            ratio.subject === subject &&
            ratio.against === against,
        ),
      ),
    );
    return html`<tr><th scope="row" class="metric">${metric.title}<small>${betterText(metric)}</small></th>${cells}</tr>`;
  });
  return html`<tbody><tr><th scope="rowgroup" class="workload" colspan="${columns.length + 1}">${workload.title}</th></tr>${rows}</tbody>`;
}

function ratioCell(ratio: Ratio | undefined): Markup {
  if (ratio === undefined) return html`<td>–</td>`;
  const { verdict } = ratio;
  const title = `${ratio.subject} is ${ratio.median} of ${ratio.against}, rounds from ${ratio.min} to ${ratio.max}`;
  return html`<td class="figures" title="${title}">${ratioFigure(ratio.median)} <small>${intervalText(ratio)}</small> <small class="${verdict}">${verdict}</small></td>`;
}
