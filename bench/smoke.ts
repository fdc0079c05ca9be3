/** What a smoke run must show: that every part of the bench works here. Speeds are no part of it. */
import type { Results, Sample } from './results.ts';

/** Sentences on what is missing; none if all is well. */
export function shortfallsOf(results: Results): readonly string[] {
  const { gates, samples, subjects, workloads } = results;
  const reasonOf = (sample: Sample) => sample.error ?? 'a figure is not a number';
  const isNumber = (value: number) => Number.isFinite(value) && value >= 0;
  const broken = samples.filter(
    ({ error, values }) => error !== undefined || !Object.values(values).every(isNumber),
  );
  // The Linux engine is there only where a compiler was; the same in C, where somebody asked for it.
  const here = subjects.filter(({ missing }) => missing === undefined);
  const absent = subjects.filter(
    ({ missing, name }) =>
      missing !== undefined &&
      !['dualport-linux', 'dualport-pseudo', 'dualport-transparent', 'c-relay'].includes(name),
  );
  const dualports = here.filter(({ kind }) => kind === 'dualport').map(({ name }) => name);
  const measured = (subject: string, workload: string) =>
    samples.some((sample) => sample.subject === subject && sample.workload === workload);
  return [
    ...absent.map(({ title, missing }) => `${title} is missing: ${missing}`),
    ...gates
      .filter(({ outcome }) => outcome === 'failed')
      .map(
        ({ subject, topology, families, protocol, reason }) =>
          `${subject} fails ${protocol} ${topology} ${families}: ${reason}`,
      ),
    ...broken.map((sample) => `${sample.subject} failed at ${sample.workload}: ${reasonOf(sample)}`),
    ...dualports.flatMap((subject) =>
      workloads
        .filter(({ name }) => !measured(subject, name))
        .map(({ name }) => `${subject} has no figure for ${name}`),
    ),
  ];
}
