/** The end of the page: who was compared under which conditions, and how the figures came about. */
import type { Results, SubjectRecord, TopologyRecord } from '../results.ts';
import { falseVerdicts } from '../statistics.ts';
import { html, type Markup } from './markup.ts';
import { bytesText, counted, intervalName } from './wording.ts';
import { inDetails, inScroll } from './workload-cards.ts';

export function method(results: Results): Markup {
  const { topologies, subjects, workloads } = results;
  return html`
<section id="method">
<h2>Method</h2>
${fairness(results)}
<h3>Subjects</h3>
${subjectTable(subjects)}
<h3>Workloads</h3>
${inDetails(`${counted(workloads.length, 'workload')}, what is done and with which tool`, html`<dl>${workloads.map((workload) => html`<dt>${workload.title} <code>${workload.name}</code></dt><dd>${workload.method}</dd>`)}</dl>`)}
<h3>Topologies</h3>
${topologies.map(topologyPart)}
</section>`;
}

function fairness({ rounds, ratios }: Results): Markup {
  const chance = falseVerdicts(rounds);
  const expected = Math.round(ratios.length * chance);
  return html`
<p>A round gives every subject one sample of every workload, so that what slows the machine for a while slows
them all; figures of different runs are not to be compared. No sample is left out for its value. A subject is
measured only if it first carried hashed bytes and datagrams unchanged (its gates).</p>
<p>Bars are medians of the rounds, whiskers the lowest and highest round. Ratios are formed within a round; their
interval is the bootstrap 95 % interval of the median, never narrower than the rounds allow without any assumption
on how they are distributed; of ${counted(rounds, 'round')} the most they can give is a ${intervalName(rounds)}. Only
an interval that excludes 1 is called better or worse. That still happens by chance in ${(100 * chance).toFixed(0)} of
100 comparisons of equals: among the ${ratios.length} ratios of this page up to ${expected} such words could be chance, and a single one that stands alone should be read so.</p>
<p>Bounds are no rivals: they show what the same work costs without a program in between.</p>`;
}

function subjectTable(subjects: readonly SubjectRecord[]): Markup {
  const rows = subjects.map(
    ({ name, title, kind, version, settings, missing }) =>
      html`<tr><th scope="row">${name}</th><td>${kind}</td><td>${title}</td><td>${missing === undefined ? version : `did not run: ${missing}`}</td><td>${settings}</td></tr>`,
  );
  return inScroll(
    'Table: subjects',
    html`<table>
<thead><tr><th scope="col">name</th><th scope="col">kind</th><th scope="col">what it is</th><th scope="col">version</th><th scope="col">settings</th></tr></thead>
<tbody>${rows}</tbody>
</table>`,
  );
}

function topologyPart({ name, title, congestionControl, settings, offloads }: TopologyRecord): Markup {
  const set = Object.entries({ 'congestion control': congestionControl, ...settings });
  return html`
<p><strong>${name}</strong>: ${title}</p>
${inDetails(`Settings of ${name}`, html`${pairTable(`Table: settings of ${name}`, set)}<p class="quiet">Offloads: ${offloads.length === 0 ? 'not known' : offloads.join(', ')}</p>`)}`;
}

export function machine({ machine, plan, arguments: words }: Results): Markup {
  const facts: readonly (readonly [string, string])[] = [
    ['processor', `${machine.cpu}, ${counted(machine.cpus, 'CPU')}`],
    ['memory', bytesText(machine.memory)],
    ['hypervisor', machine.hypervisor],
    ['kernel', machine.kernel],
    ['Node', machine.node],
    ...Object.entries(machine.tools),
    ['plan', plan],
    ['command', ['npm run bench --', ...words].join(' ')],
  ];
  return html`
<section id="machine">
<h2>Machine</h2>
${pairTable('Table: machine', facts)}
</section>`;
}

function pairTable(label: string, pairs: readonly (readonly [string, string])[]): Markup {
  const rows = pairs.map(([name, value]) => html`<tr><th scope="row">${name}</th><td>${value}</td></tr>`);
  return inScroll(label, html`<table><tbody>${rows}</tbody></table>`);
}
