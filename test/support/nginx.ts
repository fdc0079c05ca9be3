/**
 * nginx in the foreground, as one process, with a configuration of its own. Debian keeps the stream module in
 * a file of its own; elsewhere it is compiled in.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { until } from '../engine/harness.ts';
import { listening, type Place, type SocketTable, type Stage } from './dualport.ts';
import type { Running } from './process.ts';

const streamModule = '/usr/lib/nginx/modules/ngx_stream_module.so';

export class Nginx {
  readonly #running: Running;
  readonly #accessLog: string;

  constructor(running: Running, accessLog: string) {
    this.#running = running;
    this.#accessLog = accessLog;
  }

  /** Lines of the format `seen`. */
  get log(): readonly string[] {
    return readFileSync(this.#accessLog, 'utf8').split('\n').slice(0, -1);
  }

  /** Waits for a line: nginx writes it after it has answered. */
  async logged(which: (line: string) => boolean): Promise<void> {
    await until(() => this.log.some(which), `a line in the access log: ${this.log.join('\n')}`);
  }

  /** What it refused or could not do. */
  get complaints(): readonly string[] {
    return this.#running.stderr.split('\n').filter((line) => /\[(warn|error|crit|alert|emerg)\]/.test(line));
  }
}

/**
 * @param servers `server { … }` blocks for http and for stream
 * @param listeners that must be there before it counts as started
 */
export async function startNginx(
  stage: Stage,
  place: Place,
  servers: { http?: string; stream?: string },
  listeners: readonly [SocketTable, number][],
): Promise<Nginx> {
  const directory = stage.directory();
  const accessLog = join(directory, 'access.log');
  const file = join(directory, 'nginx.conf');
  writeFileSync(file, configuration(directory, accessLog, servers));
  const running = stage.start(place, 'nginx', ['-e', 'stderr', '-p', directory, '-c', file]);
  for (const [table, port] of listeners) await listening(running, table, port);
  return new Nginx(running, accessLog);
}

/** The addresses in a header, as nginx reads them. */
export const announced =
  '$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port';

function configuration(
  directory: string,
  accessLog: string,
  { http = '', stream = '' }: { http?: string; stream?: string },
): string {
  const ownPaths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (kind) => `${kind}_temp_path ${join(directory, kind)};`,
  );
  return `
${existsSync(streamModule) ? `load_module ${streamModule};` : ''}
daemon off;
master_process off;
pid ${join(directory, 'pid')};
error_log stderr warn;
events { worker_connections 1024; }
http {
  ${ownPaths.join(' ')}
  log_format seen '$proxy_protocol_addr $proxy_protocol_port $remote_addr $status $request_uri';
  access_log ${accessLog} seen;
  ${http}
}
stream {
  ${stream}
}
`;
}
