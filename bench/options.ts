/** The command line of the bench. Everything that is wrong with it is said before anything is started. */
import { parseArgs } from 'node:util';
import { familiesNames, type Request, topologyNames } from './plan.ts';
import { allSubjects } from './subjects/all.ts';
import { allWorkloads } from './workloads/all.ts';

export class UsageError extends Error {}

export interface Options extends Request {
  readonly help: boolean;
  readonly list: boolean;
  /** Folder of the results. */
  readonly out: string;
}

export const help = `Usage: npm run bench -- [options]

Measures dualport beside what one would use instead: NAT, docker-proxy, HAProxy, nginx, socat, and no relay.

  --quick                  three rounds of the main workloads, at most 3 minutes
  --smoke                  every workload once, tiny: whether it all works, not how fast
  --only <workload,…>      these workloads, or groups of them
  --subjects <subject,…>   these subjects
  --topology <T1|T2,…>     T1 is loopback; T2 client, host and container in namespaces (default)
  --families <4to4|6to6|6to4,…>
  --rounds <n>             how often everybody is measured with everything (default 6)
  --out <folder>           where results go (default bench/results)
  --list                   print the names of workloads and subjects
  -h, --help               print this help

Examples:
  npm run bench -- --quick
  npm run bench -- --only bulk,requests-64 --subjects direct,nginx-64k,dualport-portable
  npm run bench -- --only udp --families 4to4,6to4 --rounds 7

A run writes <date>.json and <date>.html. Ctrl-C ends it early and keeps what was measured. T2 needs root; it
makes its own network namespaces and removes them. Exit status: 0 done, 1 failure, 2 usage, 130 Ctrl-C.
`;

export function parseOptions(words: readonly string[]): Options {
  const { values } = parse(words);
  if (values.quick && values.smoke) throw new UsageError('--quick and --smoke exclude each other');
  return {
    help: values.help,
    list: values.list,
    out: values.out,
    plan: values.smoke ? 'smoke' : values.quick ? 'quick' : 'full',
    workloads: chosen('workload', values.only, allWorkloads, ({ name, group }) => [name, group]),
    subjects: chosen('subject', values.subjects, allSubjects, ({ name }) => [name]),
    topologies: chosen('topology', values.topology, topologyNames, (name) => [name]),
    families: chosen('pair of families', values.families, familiesNames, (name) => [name]),
    rounds: rounds(values.rounds),
  };
}

function parse(words: readonly string[]) {
  try {
    return parseArgs({
      args: [...words],
      allowPositionals: false,
      options: {
        quick: { type: 'boolean', default: false },
        smoke: { type: 'boolean', default: false },
        list: { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h', default: false },
        only: { type: 'string' },
        subjects: { type: 'string' },
        topology: { type: 'string' },
        families: { type: 'string' },
        rounds: { type: 'string' },
        out: { type: 'string', default: 'bench/results' },
      },
    });
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

/** The items that a comma list names, in their own order; nothing if the list was not given. */
function chosen<T>(
  kind: string,
  list: string | undefined,
  items: readonly T[],
  namesOf: (item: T) => readonly string[],
): readonly T[] | undefined {
  if (list === undefined) return undefined;
  const words = list.split(',').map((word) => word.trim());
  const known = [...new Set(items.flatMap(namesOf))];
  for (const word of words) {
    if (!known.includes(word))
      throw new UsageError(`${JSON.stringify(word)} is no ${kind}: there is ${known.join(', ')}`);
  }
  return items.filter((item) => namesOf(item).some((name) => words.includes(name)));
}

function rounds(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (!/^[1-9]\d{0,2}$/.test(text))
    throw new UsageError(`--rounds ${text}: it is a whole number from 1 to 999`);
  return Number(text);
}
