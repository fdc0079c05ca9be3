/** `dualport status`: asks a running dualport over its admin address; exit 0 only when it is ready. */
import { request } from 'node:http';
import type { AdminAddress } from '../config/admin-address.ts';
import { environmentOf, flagOf, options } from '../config/options.ts';
import { type Flags, readEnvironment, readFlags } from '../config/sources.ts';
import { DualportError, exitStatus, messageOf } from '../errors.ts';
import { formatHost } from '../net/address.ts';
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
  const text = await fetchStatus(address);
  const current = JSON.parse(text) as FullStatus;
  await print(json ? text : `${summary(current)}\n`);
  return current.ready ? exitStatus.done : exitStatus.failure;
}

/** Every address in turn: a port alone stands for both loopback addresses, and one may be missing here. */
async function fetchStatus(address: AdminAddress): Promise<string> {
  const places =
    address.kind === 'path'
      ? [{ socketPath: address.path }]
      : address.endpoints.map((endpoint) => ({ host: formatHost(endpoint), port: endpoint.port }));
  let failure: unknown;
  for (const place of places) {
    try {
      return await get(place);
    } catch (error) {
      failure = error;
    }
  }
  throw new DualportError('ADMIN', `no dualport answers on its admin address: ${messageOf(failure)}`, {
    cause: failure,
  });
}

function get(place: { socketPath: string } | { host: string; port: number }): Promise<string> {
  return new Promise((resolve, reject) => {
    const asked = request({ ...place, path: '/status', agent: false, timeout: answerMs }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('end', () => {
        if (response.statusCode === 200) resolve(Buffer.concat(chunks).toString());
        else reject(new Error(`it answered with status ${response.statusCode}`));
      });
      response.on('error', reject);
    });
    asked.on('timeout', () => asked.destroy(new Error(`no answer within ${answerMs / 1000} s`)));
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
