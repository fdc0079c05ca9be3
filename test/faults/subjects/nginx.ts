/** nginx with its stream module. */
import { existsSync } from 'node:fs';
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

const streamModule = '/usr/lib/nginx/modules/ngx_stream_module.so';

export const nginx: Subject = {
  name: 'nginx',
  title: 'nginx stream',
  workers: 1,
  settings:
    'one worker, proxy_half_close on, proxy_buffer_size 64k, error_log warn; timeouts and worker_connections where the row sets them',
  version: () => versionOf(['nginx', '-v'], /nginx\/(\S+)/, 'nginx libnginx-mod-stream'),
  cannot: ({ publish, accept, announce, admin, udp: unanswered, udpStream }) => {
    const udp = publish.some(({ protocol }) => protocol === 'udp');
    if (udp && (accept ?? announce) !== undefined) return 'knows no PROXY protocol on UDP';
    if (udp && unanswered !== udpStream) return 'has one timeout for flows with and without an answer';
    if (announce === 'proxy-v2') return 'sends version 1 only';
    return admin === undefined ? undefined : 'shows no state of streams';
  },
  commands: (folder, wanted) => {
    const file = join(folder, 'nginx.conf');
    writeConfiguration(file, configuration(folder, wanted));
    return [['nginx', '-e', 'stderr', '-p', folder, '-c', file]];
  },
  file: 'nginx.conf',
  signals: { reload: 'SIGHUP', drain: 'SIGQUIT' },
};

function configuration(folder: string, wanted: Wanted): string {
  // Each connection has two, and each listener one.
  const listeners = wanted.publish.reduce((total, publication) => total + hostsOf(publication).length, 0);
  const connections = wanted.flows === undefined ? 65535 : 2 * wanted.flows + listeners + 1;
  const udpTimeout = wanted.udpStream ?? wanted.udp;
  return `${existsSync(streamModule) ? `load_module ${streamModule};` : ''}
daemon off;
user root;
worker_processes 1;
pid ${folder}/nginx.pid;
error_log stderr warn;
${wanted.drain === undefined ? '' : `worker_shutdown_timeout ${wanted.drain}ms;`}
events { worker_connections ${connections}; }
stream {
  proxy_half_close on;
  proxy_buffer_size 64k;
  proxy_connect_timeout ${wanted.connect ?? 60_000}ms;
  proxy_timeout ${wanted.idle ?? udpTimeout ?? 600_000}ms;
  ${wanted.header === undefined ? '' : `proxy_protocol_timeout ${wanted.header}ms;`}
  ${wanted.publish.map((publication) => relay(publication, wanted)).join('\n  ')}
}
`;
}

function relay(publication: Publication, { accept, announce }: Wanted): string {
  const { protocol, port, to, allow, deny } = publication;
  const kind = `${protocol === 'udp' ? ' udp' : ' backlog=4096'}${accept === undefined ? '' : ' proxy_protocol'}`;
  const rules = [
    ...(accept ?? []).map((prefix) => `set_real_ip_from ${prefix};`),
    ...(deny ?? []).map((prefix) => `deny ${prefix};`),
    ...(allow ?? []).map((prefix) => `allow ${prefix};`),
    ...(allow === undefined ? [] : ['deny all;']),
    ...(announce === undefined ? [] : ['proxy_protocol on;']),
  ];
  const listens = hostsOf(publication).map((host) => `listen ${bracketed(host)}:${port}${kind};`);
  return `server { ${listens.join(' ')} ${rules.join(' ')} proxy_pass ${bracketed(to.host)}:${to.port}; }`;
}
