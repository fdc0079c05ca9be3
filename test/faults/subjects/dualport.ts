/** dualport itself, as built, with one engine or the other. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { main } from '../../support/process.ts';
import {
  bracketed,
  hostsOf,
  type Publication,
  type Subject,
  type Wanted,
  writeConfiguration,
} from '../subject.ts';

export const linux: Subject = makeDualport('linux');
export const portable: Subject = makeDualport('portable');

function makeDualport(engine: 'linux' | 'portable'): Subject {
  return {
    name: engine,
    title: `dualport, ${engine} engine`,
    workers: 0,
    settings: 'defaults, and what the row sets',
    version: () => {
      const words = ['check', '--engine', engine, '--publish', '127.0.0.1:1024:1024'];
      const { status, stderr } = spawnSync(process.execPath, [main, ...words], { encoding: 'utf8' });
      if (status !== 0) throw new Error(`not built: ${stderr.trim().split('\n')[0]}`);
      return JSON.parse(readFileSync(new URL('../../../../package.json', import.meta.url), 'utf8')).version;
    },
    cannot: () => undefined,
    commands: (folder, wanted) => {
      const file = join(folder, 'dualport.yaml');
      // JSON is YAML.
      writeConfiguration(file, JSON.stringify(configuration(engine, folder, wanted), null, 1));
      return [[process.execPath, main, '--config', file]];
    },
    file: 'dualport.yaml',
    signals: { reload: 'SIGHUP', drain: 'SIGTERM' },
  };
}

function configuration(engine: string, folder: string, wanted: Wanted): object {
  return withoutUnset({
    engine,
    admin: wanted.admin === undefined ? adminSocket(folder) : String(wanted.admin),
    docker: wanted.docker === undefined ? undefined : true,
    dockerEngine: wanted.docker === undefined ? undefined : `unix://${wanted.docker}`,
    accessLog: wanted.accessLog,
    drainTimeout: milliseconds(wanted.drain),
    maxFlows: wanted.flows,
    defaults: withoutUnset({
      connectTimeout: milliseconds(wanted.connect),
      idleTimeout: milliseconds(wanted.idle),
      halfCloseTimeout: milliseconds(wanted.halfClose),
      headerTimeout: milliseconds(wanted.header),
      udpTimeout: milliseconds(wanted.udp),
      udpStreamTimeout: milliseconds(wanted.udpStream),
      acceptProxy: wanted.accept,
      source: wanted.announce,
      proxyCrc32c: wanted.checksum,
      proxyUniqueId: wanted.uniqueId,
      // All load of a row is from one client, and what one client may have is no row.
      maxFlowsPerSource: wanted.flows ?? 10_000_000,
      maxFlowsPerRule: wanted.flows ?? 10_000_000,
    }),
    publish: wanted.publish.map((publication) =>
      withoutUnset({
        ports: portsOf(publication),
        to: [publication.to.host],
        allow: publication.allow,
        deny: publication.deny,
      }),
    ),
  });
}

/** Where a dualport of a row shows its state unless the row says otherwise. */
export function adminSocket(folder: string): string {
  return join(folder, 'admin.sock');
}

function portsOf(publication: Publication): readonly string[] {
  const { protocol, port, to } = publication;
  if (publication.hosts === undefined) return [`${port}:${to.port}/${protocol}`];
  return hostsOf(publication).map((host) => `${bracketed(host)}:${port}:${to.port}/${protocol}`);
}

function milliseconds(value: number | undefined): string | undefined {
  return value === undefined ? undefined : `${value}ms`;
}

function withoutUnset(values: Readonly<Record<string, unknown>>): object {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));
}
