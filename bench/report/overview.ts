/** The head of the page: what ran and how it ended, in words computed from the file, and what is missing. */
import type { GateRecord, Ratio, Results, Sample, SubjectRecord } from '../results.ts';
import { html, type Markup, nothing } from './markup.ts';
import { bytesText, counted, dateText, durationText, listed, timeText, whole } from './wording.ts';
import { inDetails, inScroll } from './workload-cards.ts';
import type { World } from './worlds.ts';

/** Above this share of the CPU time a sample says more of the neighbours than of the subject. */
const muchSteal = 2;

export function titleOf({ plan, startedAt }: Results): string {
  return `dualport bench: ${plan} run of ${dateText(startedAt)}`;
}

export function summary(results: Results, worlds: readonly World[]): Markup {
  return html`
<p>${whatRan(results, worlds)}</p>
${alarms(results)}
<ul>${worlds.flatMap((world) => results.subjects.flatMap((subject) => howItStands(results, world, subject)))}</ul>`;
}

function whatRan(results: Results, worlds: readonly World[]): string {
  const { machine, startedAt, finishedAt, rounds, complete, subjects, samples } = results;
  const measured = new Set(samples.map(({ subject }) => subject));
  const workloads = new Set(samples.map(({ workload }) => workload));
  const reached = Math.max(0, ...samples.map(({ round }) => round));
  return [
    `Measured on ${dateText(startedAt)} from ${timeText(startedAt)} to ${timeText(finishedAt)} UTC`,
    ` (${durationText(startedAt, finishedAt)}) on ${machine.cpu}, ${counted(machine.cpus, 'CPU')},`,
    ` ${bytesText(machine.memory)} of memory, ${machine.hypervisor}, Linux ${machine.kernel}.`,
    ` ${measured.size} of ${counted(subjects.length, 'subject')} under ${counted(workloads.size, 'workload')}`,
    ` in ${listed(worlds.map(({ title }) => title))}, ${counted(rounds, 'round')} planned:`,
    ` ${counted(samples.length, 'sample')}.`,
    complete
      ? ' The run is complete.'
      : ` The run was cut short in round ${reached}: what follows is from the samples up to then.`,
  ].join('');
}

/** One sentence for each dualport subject: its first metrics against the peers. */
function howItStands(results: Results, world: World, { name, kind }: SubjectRecord): readonly Markup[] {
  const peers = results.subjects.filter((other) => other.kind === 'peer').map((other) => other.name);
  const headlines = new Map(world.workloads.map((workload) => [workload.name, workload.metrics[0]?.name]));
  const ratios = world.ratios.filter(
    ({ subject, against, workload, metric }) =>
      subject === name && peers.includes(against) && headlines.get(workload) === metric,
  );
  if (kind !== 'dualport' || ratios.length === 0) return [];
  const count = (verdict: Ratio['verdict']) => ratios.filter((ratio) => ratio.verdict === verdict).length;
  return [
    html`<li><strong>${name}</strong> in ${world.title}: of ${counted(ratios.length, 'comparison')} with peers on the
first metric of each workload ${count('better')} better, ${count('worse')} worse, ${count('no difference')} without a
difference that the rounds could show.</li>`,
  ];
}

/** What a reader must know before the first figure; nothing if there is nothing. */
function alarms(results: Results): Markup {
  const { complete, remarks, samples } = results;
  const lines = [
    ...(complete ? [] : ['The run was cut short.']),
    ...remarks,
    ...stolen(samples),
    ...[whatIsMissing(results)]
      .filter((part) => part.length > 0)
      .map((part) => html`${listed(part)}: <a href="#missing">what is missing or failed</a>.`),
  ];
  if (lines.length === 0) return nothing;
  return html`
<div class="alarm" role="note" aria-label="Remarks">
<strong>Before you read the figures</strong>
<ul>${lines.map((line) => html`<li>${line}</li>`)}</ul>
</div>`;
}

function whatIsMissing({ subjects, gates, samples }: Results): readonly string[] {
  const absent = subjects.filter(({ missing }) => missing !== undefined).length;
  const failedGates = gates.filter(({ outcome }) => outcome === 'failed').length;
  const failedSamples = samples.filter(({ error }) => error !== undefined).length;
  return [
    ...(absent > 0 ? [`${counted(absent, 'subject')} did not run`] : []),
    ...(failedGates > 0 ? [`${counted(failedGates, 'gate')} failed`] : []),
    ...(failedSamples > 0 ? [`${whole(failedSamples)} of ${counted(samples.length, 'sample')} failed`] : []),
  ];
}

function stolen(samples: readonly Sample[]): readonly string[] {
  const disturbed = samples.filter(({ steal }) => steal > muchSteal);
  if (disturbed.length === 0) return [];
  const worst = Math.max(...disturbed.map(({ steal }) => steal)).toFixed(1);
  return [
    `During ${whole(disturbed.length)} of ${counted(samples.length, 'sample')} the hypervisor gave more than ${muchSteal} % of the CPU time to others (at most ${worst} %); they are kept.`,
  ];
}

function gateText({ subject, protocol, topology, families, reason = 'no reason given' }: GateRecord): string {
  return `${subject} failed the ${protocol.toUpperCase()} gate in ${topology} ${families} and was not measured there: ${reason}`;
}

/** Subjects without samples, failed gates, failed samples; a section even if all is well. */
export function absences(results: Results): Markup {
  const missing = results.subjects.flatMap(({ name, missing }) =>
    missing === undefined ? [] : [html`<li><strong>${name}</strong>: ${missing}</li>`],
  );
  const gates = results.gates
    .filter(({ outcome }) => outcome === 'failed')
    .map((gate) => html`<li>${gateText(gate)}</li>`);
  const failures = failureTable(results.samples);
  const list = [
    missing.length === 0 ? nothing : html`<h3>Subjects that did not run</h3><ul>${missing}</ul>`,
    gates.length === 0 ? nothing : html`<h3>Gates that failed</h3><ul>${gates}</ul>`,
    failures,
  ];
  const all = list.every((part) => part === nothing);
  return html`
<section id="missing">
<h2>What is missing or failed</h2>
${all ? html`<p>Nothing: every subject ran, passed its gates, and gave a value in every sample.</p>` : list}
</section>`;
}

/** Samples that failed for the same reason in a row of rounds are one row. */
function failureTable(samples: readonly Sample[]): Markup {
  const groups = new Map<string, Sample[]>();
  for (const sample of samples) {
    const { error, subject, topology, families, workload } = sample;
    if (error === undefined) continue;
    const key = JSON.stringify([subject, topology, families, workload, error]);
    groups.set(key, [...(groups.get(key) ?? []), sample]);
  }
  if (groups.size === 0) return nothing;
  const table = html`<table>
<thead><tr><th scope="col">subject</th><th scope="col">workload</th><th scope="col">where</th><th scope="col">rounds</th><th scope="col">error</th></tr></thead>
<tbody>${[...groups.values()].flatMap(failureRow)}</tbody>
</table>`;
  const count = samples.filter(({ error }) => error !== undefined).length;
  return html`<h3>Samples that failed</h3>${inDetails(`${counted(count, 'sample')}, by subject and error`, inScroll('Table: failed samples', table))}`;
}

function failureRow(samples: readonly Sample[]): readonly Markup[] {
  const [first] = samples;
  if (first === undefined) return [];
  const { subject, workload, topology, families, error = '' } = first;
  const rounds = samples.map(({ round }) => round).join(', ');
  return [
    html`<tr><th scope="row">${subject}</th><td>${workload}</td><td>${topology} ${families}</td><td>${rounds}</td><td>${error}</td></tr>`,
  ];
}
