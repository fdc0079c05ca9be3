/** The command line of the gates. Everything that is wrong with it is said before anything is started. */
import { parseArgs } from 'node:util';
import { allGates } from './promises/all.ts';

export class UsageError extends Error {}

/** How much of everything: what fits into every check, the long form, and just enough to see a planted fault. */
export type Form = 'ci' | 'soak' | 'tiny';

export const engineNames = ['portable', 'linux'] as const;
export type EngineName = (typeof engineNames)[number];

export interface Options {
  readonly help: boolean;
  readonly form: Form;
  /** No gate is run but to find faults that are planted into copies of the product. */
  readonly seedsAlone: boolean;
  readonly gates: readonly string[];
  readonly engines: readonly EngineName[];
  /** Folder of the results as JSON, or nowhere. */
  readonly out: string | undefined;
}

const gateNames = allGates.map(({ name }) => name);

export const help = `Usage: npm run gates -- [options]
       npm run soak -- [options]

Loads dualport until something that it promises could give way, and says what was expected and what was seen. gates is
the form for every check, a few minutes; soak is the long one, and finds planted faults, too.

  --only <gate,…>     these: ${gateNames.join(', ')}
  --engine <name>     linux or portable alone
  --seeded            plants faults into copies of dualport, one at a time, which the gates have to find; nothing else
  --soak              the long form
  --tiny              as little of everything as can still show a fault, in a minute
  --out <folder>      writes the results there, as JSON
  -h, --help          print this help

Exit status: 0 all gates held, 1 one did not, 2 usage. It needs root, or a kernel that lets users make namespaces of
their own; all it does happens in such, and ends with them.
`;

export function parseOptions(words: readonly string[]): Options {
  const { values } = parse(words);
  return {
    help: values.help,
    form: formOf(values),
    seedsAlone: values.seeded,
    gates: values.only === undefined ? gateNames : chosen('gate', values.only, gateNames),
    engines: values.engine === undefined ? engineNames : chosen('engine', values.engine, engineNames),
    out: values.out,
  };
}

function parse(words: readonly string[]) {
  try {
    return parseArgs({
      args: [...words],
      allowPositionals: false,
      options: {
        help: { type: 'boolean', short: 'h', default: false },
        soak: { type: 'boolean', default: false },
        tiny: { type: 'boolean', default: false },
        seeded: { type: 'boolean', default: false },
        only: { type: 'string' },
        engine: { type: 'string' },
        out: { type: 'string' },
      },
    });
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

function formOf({ soak, tiny }: { soak: boolean; tiny: boolean }): Form {
  if (soak && tiny) throw new UsageError('--soak and --tiny are two forms: leave one out');
  if (soak) return 'soak';
  return tiny ? 'tiny' : 'ci';
}

function chosen<T extends string>(kind: string, list: string, names: readonly T[]): readonly T[] {
  const words = list.split(',').map((word) => word.trim());
  const unknown = words.find((word) => !names.some((name) => name === word));
  if (unknown !== undefined)
    throw new UsageError(`${JSON.stringify(unknown)} is no ${kind}: there is ${names.join(', ')}`);
  return names.filter((name) => words.includes(name));
}
