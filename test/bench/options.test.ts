import assert from 'node:assert/strict';
import test from 'node:test';
import { parseOptions, UsageError } from '../../bench/options.ts';
import { allSubjects } from '../../bench/subjects/all.ts';
import { allWorkloads } from '../../bench/workloads/all.ts';

const refusals: readonly (readonly [words: string, said: RegExp])[] = [
  ['--only bulk-2-down', /"bulk-2-down" is no workload: there is bulk-1-down, bulk, /],
  ['--only bulk,,udp', /"" is no workload/],
  ['--subjects envoy', /"envoy" is no subject: there is direct, nft-dnat, docker-proxy, /],
  ['--subjects direct,Nginx', /"Nginx" is no subject/],
  ['--topology T3', /"T3" is no topology: there is T1, T2/],
  ['--families 4to6', /"4to6" is no pair of families: there is 4to4, 6to6, 6to4/],
  ['--rounds 0', /--rounds 0: it is a whole number from 1 to 999/],
  ['--rounds 2.5', /--rounds 2.5: /],
  ['--rounds', /argument missing/],
  ['--quick --smoke', /--quick and --smoke exclude each other/],
  ['--fast', /--fast/],
  ['T2', /T2/],
];
for (const [words, said] of refusals) {
  test(`${words} is refused`, () => {
    assert.throws(
      () => parseOptions(words.split(' ')),
      (error: Error) => {
        assert.ok(error instanceof UsageError);
        assert.match(error.message, said);
        return true;
      },
    );
  });
}

test('lists name workloads, groups of them and subjects, in any order', () => {
  const { workloads, subjects } = parseOptions(['--only', 'udp-trains, bulk', '--subjects', 'nginx,direct']);
  const expected = ['bulk-1-down', 'bulk-1-up', 'bulk-8-down', 'bulk-8-up', 'udp-trains'];
  assert.deepEqual(
    workloads?.map(({ name }) => name),
    expected,
  );
  assert.deepEqual(
    subjects?.map(({ name }) => name),
    ['direct', 'nginx'],
  );
});

test('without options it is the full run of everything', () => {
  const { plan, workloads, subjects, topologies, families, rounds } = parseOptions([]);
  assert.deepEqual([plan, workloads, subjects, topologies, families, rounds], ['full', ...Array(5)]);
});

test('names are unique, and no workload has the name of a group', () => {
  const names = [...allWorkloads, ...allSubjects].map(({ name }) => name);
  const groups = new Set<string>(allWorkloads.map(({ group }) => group));
  assert.equal(new Set(names).size, names.length);
  // "connections" is alone in its group, so both mean the same.
  assert.deepEqual(
    names.filter((name) => groups.has(name)),
    ['connections'],
  );
});
