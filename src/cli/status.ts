/** `dualport status`: asks a running dualport over its admin address; exit 0 only when it is ready. */
import { request } from 'node:http';
import type { AdminAddress } from '../config/admin-address.ts';
import { environmentOf, flagOf, options } from '../config/options.ts';
import { type Flags, readEnvironment, readFlags } from '../config/sources.ts';
import { DualportError, errnoOf, exitStatus, messageOf } from '../errors.ts';
import { formatEndpoint, formatHost } from '../net/address.ts';
import { print } from './print.ts';
import type { FullStatus } from './serve.ts';
import { table } from './table.ts';

const answerMs = 5000;

export async function status(flags: Flags, json: boolean): Promise<number> {
  const address = readFlags(flags).admin ?? readEnvironment(process.env).admin;
  if (address === undefined) {
    const how = `${flagOf('admin')} ${options.admin.placeholder} or ${environmentOf('admin')}`;
    throw new DualportError(
      'USAGE',
      `dualport status needs the admin address of the running dualport: give ${how}`,
    );
  }
  const { text, current } = await fetchStatus(address);
  await print(json ? text : `${summary(current)}\n`);
  return current.ready ? exitStatus.done : exitStatus.failure;
}

/** Every address in turn: a port alone stands for both loopback addresses, and one may be missing here. */
async function fetchStatus(address: AdminAddress): Promise<Answer> {
  const places: readonly (readonly [string, Place])[] =
    address.kind === 'path'
      ? [[address.path, { socketPath: address.path }]]
      : address.endpoints.map((at) => [formatEndpoint(at), { host: formatHost(at), port: at.port }]);
  const failures: string[] = [];
  let cause: unknown;
  for (const [text, place] of places) {
    try {
      return readAnswer(await get(place));
    } catch (error) {
      failures.push(`on ${text}: ${troubles[errnoOf(error) ?? ''] ?? messageOf(error)}`);
      cause = error;
    }
  }
  throw new DualportError(
    'ADMIN',
    `no dualport answers ${failures.join(', nor ')}; give the ${flagOf('admin')} of one that runs`,
    { cause },
  );
}

type Place = { readonly socketPath: string } | { readonly host: string; readonly port: number };

const troubles: Partial<Record<string, string>> = {
  ENOENT: 'there is no such socket',
  ECONNREFUSED: 'nobody listens',
  EACCES: 'this user may not use it',
  ABORT_ERR: `no answer within ${answerMs / 1000} s`,
};

interface Answer {
  readonly text: string;
  readonly current: FullStatus;
}

/** Another program may have the port. */
function readAnswer(text: string): Answer {
  try {
    const current = JSON.parse(text) as Partial<FullStatus>;
    if (typeof current.version === 'string' && Array.isArray(current.rules))
      return { text, current: current as FullStatus };
  } catch {
    // Said below.
  }
  throw new Error('what answers is not dualport');
}

function get(place: Place): Promise<string> {
  return new Promise((resolve, reject) => {
    const signal = AbortSignal.timeout(answerMs);
    const asked = request({ ...place, path: '/status', agent: false, signal }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('end', () => {
        if (response.statusCode === 200) resolve(Buffer.concat(chunks).toString());
        else reject(new Error(`it answered with status ${response.statusCode}`));
      });
      response.on('error', reject);
    });
    asked.on('error', reject);
    asked.end();
  });
}

function summary(current: FullStatus): string {
  const { version, engine, ready, uptimeSeconds, maxFlows, threads, rules } = current;
  const rows = rules.map((rule) => [
    rule.name,
    rule.listen.join(' '),
    rule.upstreams.join(' '),
    rule.source,
    ...[rule.flowsActive, rule.flows, rule.fallbacks, rule.failures, ...rule.bytes].map(String),
  ]);
  const heading = [
    'RULE',
    'LISTEN',
    'UPSTREAMS',
    'SOURCE',
    'ACTIVE',
    'FLOWS',
    'FALLBACKS',
    'FAILURES',
    'BYTES IN',
    'BYTES OUT',
  ];
  const state = ready ? 'ready' : 'draining';
  const spread = threads.length > 1 ? ` on ${threads.length} threads` : '';
  const head = `dualport ${version}, ${engine} engine, ${state}, up ${uptimeSeconds} s, at most ${maxFlows} flows${spread}`;
  return [head, ...dockerLines(current.docker), table(heading, rows)].join('\n');
}

function dockerLines(docker: FullStatus['docker']): readonly string[] {
  if (docker === undefined) return [];
  const state = docker.connected
    ? `connected to Docker ${docker.version}`
    : 'away, what was published stays so';
  const counts = `${docker.rules} rules of ${docker.containers} containers, ${docker.refused} refused`;
  const refusals = docker.refusals.map(({ container, reason }) => `  ${container}: ${reason}`);
  return [`docker ${docker.engine}: ${state}; ${counts}`, ...refusals];
}
