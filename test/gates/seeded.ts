/**
 * The test of the gates: faults are planted into copies of dualport, one at a time, and the gate that is named has to find
 * it, and to say it. Before that the same gates have to hold in the same form for dualport as it is, or a find would
 * mean nothing.
 */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Gate } from './gate.ts';
import { allGates } from './promises/all.ts';
import { runGate, type Task } from './run.ts';
import { type Seed, seeds } from './seeds.ts';

export interface Find {
  readonly seed: Seed;
  /** What the gate said, or why it has not found it. */
  readonly said: string;
  readonly caught: boolean;
}

type Settings = Pick<Task, 'engines' | 'product' | 'folder'>;

const root = fileURLToPath(new URL('../../../', import.meta.url));

/**
 * For all engines at once.
 *
 * @param gates the names of those whose seeds are wanted
 */
export async function findSeeds(
  gates: readonly string[],
  settings: Settings,
  done: (find: Find) => void,
): Promise<readonly Find[]> {
  const wanted = seeds.filter(({ gate }) => gates.includes(gate));
  const finds = settings.engines.map((engine) =>
    findInTurn(
      wanted.filter((seed) => seed.engine === engine),
      { ...settings, folder: join(settings.folder, engine) },
      done,
    ),
  );
  return (await Promise.all(finds)).flat();
}

async function findInTurn(
  wanted: readonly Seed[],
  { product, folder }: Settings,
  done: (find: Find) => void,
): Promise<readonly Find[]> {
  const finds: Find[] = [];
  const sound = new Map<Gate, string>();
  for (const [i, seed] of wanted.entries()) {
    const gate = gateOf(seed);
    const soundly = sound.get(gate) ?? (await complaints(gate, seed, product, join(folder, `sound-${i}`)));
    sound.set(gate, soundly);
    const find =
      soundly === ''
        ? await findSeed(gate, seed, join(folder, `seed-${i}`))
        : lost(seed, `without it: ${soundly}`);
    finds.push(find);
    done(find);
  }
  return finds;
}

async function findSeed(gate: Gate, seed: Seed, folder: string): Promise<Find> {
  let product: string;
  try {
    product = plant(seed, folder);
  } catch (error) {
    return lost(seed, (error as Error).message);
  }
  const said = await complaints(gate, seed, product, join(folder, 'arena'));
  if (seed.seen.test(said)) return { seed, said, caught: true };
  return lost(seed, said === '' ? 'the gate holds' : `the gate says something else: ${said}`);
}

function lost(seed: Seed, said: string): Find {
  return { seed, said, caught: false };
}

/** What a gate finds broken in its tiny form. */
async function complaints(gate: Gate, { engine }: Seed, product: string, folder: string): Promise<string> {
  mkdirSync(folder, { recursive: true });
  const { broken } = await runGate(gate, engine, {
    engines: [engine],
    form: 'tiny',
    product,
    folder,
    done: () => {},
  });
  return broken.join('; ');
}

function gateOf(seed: Seed): Gate {
  const gate = allGates.find(({ name }) => name === seed.gate);
  if (gate === undefined) throw new Error(`${seed.fault}: there is no gate ${seed.gate}`);
  return gate;
}

/** A copy of dualport with this fault; returns its main file. */
function plant(seed: Seed, folder: string): string {
  cpSync(join(root, 'dist/src'), join(folder, 'dist/src'), { recursive: true });
  cpSync(join(root, 'native'), join(folder, 'native'), { recursive: true });
  cpSync(join(root, 'package.json'), join(folder, 'package.json'));
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
  const isNative = seed.file.startsWith('native/');
  const path = join(folder, isNative ? seed.file : join('dist/src', seed.file));
  const parts = readFileSync(path, 'utf8').split(seed.text);
  if (parts.length !== 2)
    throw new Error(
      `${seed.fault}: its text stands ${parts.length - 1} times in ${seed.file}; it has to be once`,
    );
  writeFileSync(path, parts.join(seed.wrong));
  if (isNative) build(seed, folder);
  return join(folder, 'dist/src/main.js');
}

function build(seed: Seed, folder: string): void {
  const { status, stderr } = spawnSync('sh', ['native/build.sh'], { cwd: folder, encoding: 'utf8' });
  if (status !== 0 || stderr !== '') throw new Error(`${seed.fault}: it cannot be built: ${stderr}`);
}
