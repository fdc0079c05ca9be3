/** nginx with its stream module, which copies through one buffer per direction. */
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { versionOf } from './installed.ts';
import { bracketed, type Publication, type Subject, startProgram } from './subject.ts';

const streamModule = '/usr/lib/nginx/modules/ngx_stream_module.so';

interface Tuning {
  readonly events: string;
  readonly listen: string;
  readonly server: string;
}

export const nginx: Subject = makeNginx(
  'nginx',
  'nginx stream',
  'defaults (buffers of 16 KiB), but enough worker_connections',
  { events: '', listen: '', server: '' },
);

export const nginx64k: Subject = makeNginx(
  'nginx-64k',
  'nginx stream, 64 KiB',
  'tuned: buffers of 64 KiB, reuseport, backlog 4096, accept_mutex and multi_accept off',
  {
    events: 'accept_mutex off; multi_accept off;',
    listen: ' reuseport',
    server: 'proxy_buffer_size 64k; tcp_nodelay on;',
  },
);

function makeNginx(name: string, title: string, settings: string, tuning: Tuning): Subject {
  return {
    name,
    title,
    kind: 'peer',
    settings: `${settings}; one worker, no logs`,
    version: () => {
      const version = versionOf(['nginx', '-v'], /nginx\/(\S+)/, 'nginx libnginx-mod-stream');
      if (!existsSync(streamModule))
        throw new Error(`nginx has no ${streamModule} (apt-get install libnginx-mod-stream)`);
      return version;
    },
    start: (stage, publications) => {
      const path = join(stage.scratch, 'nginx.conf');
      writeFileSync(path, configuration(stage.scratch, tuning, publications));
      return startProgram(stage, ['nginx', '-p', stage.scratch, '-c', path], publications);
    },
  };
}

function configuration(scratch: string, tuning: Tuning, publications: readonly Publication[]): string {
  const servers = publications.map(({ protocol, host, container }) => {
    const kind = protocol === 'udp' ? ' udp' : tuning.listen === '' ? '' : ' backlog=4096';
    return `server {
    listen ${bracketed(host.address)}:${host.port}${kind}${tuning.listen};
    proxy_pass ${bracketed(container.address)}:${container.port};
    ${tuning.server}
  }`;
  });
  return `load_module ${streamModule};
daemon off;
worker_processes 1;
pid ${scratch}/nginx.pid;
error_log ${scratch}/error.log;
events { worker_connections 65535; ${tuning.events} }
stream {
  proxy_timeout 1h;
  ${servers.join('\n  ')}
}
`;
}
