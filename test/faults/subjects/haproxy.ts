/** HAProxy in TCP mode. */
import { join } from 'node:path';
import { versionOf } from '../../../bench/subjects/installed.ts';
import {
  bracketed,
  hostsOf,
  type Publication,
  type Subject,
  type Wanted,
  writeConfiguration,
} from '../subject.ts';

export const haproxy: Subject = {
  name: 'haproxy',
  title: 'HAProxy',
  workers: 1,
  settings:
    'mode tcp, option tcplog, master and worker, expose-fd listeners; timeouts and maxconn where the row sets them',
  version: () => versionOf(['haproxy', '-v'], /version (\S+)/, 'haproxy'),
  cannot: ({ publish, admin }) => {
    if (publish.some(({ protocol }) => protocol === 'udp')) return 'relays no UDP';
    return typeof admin === 'number' ? 'its state is shown where the configuration says' : undefined;
  },
  commands: (folder, wanted) => {
    const file = join(folder, 'haproxy.cfg');
    writeConfiguration(file, configuration(folder, wanted));
    return [['haproxy', '-W', '-db', '-f', file]];
  },
  file: 'haproxy.cfg',
  signals: { reload: 'SIGUSR2', drain: 'SIGUSR1' },
};

const second = 1000;

function configuration(folder: string, wanted: Wanted): string {
  const { connect = 5 * second, idle = 3600 * second, halfClose, header, flows } = wanted;
  const halfCloses =
    halfClose === undefined ? [] : [`timeout client-fin ${halfClose}`, `timeout server-fin ${halfClose}`];
  return `global
  log stdout format raw local0
  ${flows === undefined ? '' : `maxconn ${flows}`}
  stats socket ${typeof wanted.admin === 'string' ? wanted.admin : join(folder, 'stats.sock')} level admin expose-fd listeners
  ${wanted.drain === undefined ? '' : `hard-stop-after ${wanted.drain}ms`}
defaults
  mode tcp
  log global
  option tcplog
  backlog 4096
  timeout connect ${connect}
  timeout client ${header ?? idle}
  timeout server ${idle}
  ${halfCloses.join('\n  ')}
${wanted.publish.map((publication) => relay(publication, wanted)).join('\n')}
`;
}

function relay(publication: Publication, { accept, announce, checksum, uniqueId }: Wanted): string {
  const { port, to, allow, deny } = publication;
  const extras = [...(checksum ? ['crc32c'] : []), ...(uniqueId ? ['unique-id'] : [])];
  const send = announce === undefined ? '' : ` send-proxy${announce === 'proxy-v2' ? '-v2' : ''}`;
  const rules = [
    ...(accept === undefined ? [] : [`tcp-request connection reject if !{ src ${accept.join(' ')} }`]),
    ...(accept === undefined ? [] : ['tcp-request connection expect-proxy layer4']),
    ...(deny === undefined ? [] : [`tcp-request connection reject if { src ${deny.join(' ')} }`]),
    ...(allow === undefined ? [] : [`tcp-request connection reject if !{ src ${allow.join(' ')} }`]),
    ...(uniqueId ? ['unique-id-format %{+X}o-%ci-%cp-%rt'] : []),
  ];
  const binds = hostsOf(publication).map(
    (host) => `bind ${bracketed(host)}:${port}${host === '::' ? ' v6only' : ''}`,
  );
  return `listen port-${port}
  ${binds.join('\n  ')}
  ${rules.join('\n  ')}
  server upstream ${bracketed(to.host)}:${to.port}${send}${extras.length > 0 ? ` proxy-v2-options ${extras.join(',')}` : ''}`;
}
