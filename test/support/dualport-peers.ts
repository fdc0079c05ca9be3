/**
 * dualport between other proxies on loopback: who sends headers to it, who receives headers from it, and the
 * client at the beginning of the row.
 */
import { once } from 'node:events';
import net from 'node:net';
import { type Dualport, here, type Stage } from './dualport.ts';
import { startHaproxy } from './haproxy.ts';
import { announced, type Nginx, startNginx } from './nginx.ts';
import { freePort, type Running } from './process.ts';

/** Every address of 127.0.0.0/8 is this host's, so a client can have one of its own. */
export const families = [
  { client: '127.0.0.9', dialled: '127.0.0.1' },
  { client: '::1', dialled: '::1' },
];

/** Starts a proxy on `port` of both families that sends a header to 127.0.0.1:`to`. */
export type StartSender = (stage: Stage, port: number, to: number) => Promise<unknown>;

export const senders: readonly { title: string; start: StartSender }[] = [
  { title: 'nginx (stream) with proxy_protocol on', start: sendingNginx },
  { title: 'HAProxy with send-proxy', start: sendingHaproxy('send-proxy') },
  { title: 'HAProxy with send-proxy-v2', start: sendingHaproxy('send-proxy-v2') },
  {
    title: 'HAProxy with send-proxy-v2-ssl-cn, checksum and unique id',
    start: sendingHaproxy('send-proxy-v2-ssl-cn proxy-v2-options crc32c,unique-id'),
  },
];

function sendingNginx(stage: Stage, port: number, to: number): Promise<Nginx> {
  const stream = `server {
    listen 127.0.0.1:${port}; listen [::1]:${port};
    proxy_pass 127.0.0.1:${to};
    proxy_protocol on;
    proxy_half_close on;
  }`;
  return startNginx(stage, here, { stream }, [
    ['tcp', port],
    ['tcp6', port],
  ]);
}

export function sendingHaproxy(how: string): (stage: Stage, port: number, to: number) => Promise<Running> {
  return (stage, port, to) => {
    const sections = `
listen sender
  mode tcp
  bind 127.0.0.1:${port}
  bind [::1]:${port}
  unique-id-format %{+X}o-%ci-%cp-%rt
  server dualport 127.0.0.1:${to} ${how}`;
    return startHaproxy(stage, here, sections, [
      ['tcp', port],
      ['tcp6', port],
    ]);
  };
}

export function receivingNginx(stage: Stage, port: number): Promise<Nginx> {
  return startNginx(
    stage,
    here,
    { http: `server { listen 127.0.0.1:${port} proxy_protocol; return 200 "${announced}"; }` },
    [['tcp', port]],
  );
}

export function receivingHaproxy(stage: Stage, port: number): Promise<Running> {
  const sections = `
frontend receiver
  mode http
  bind 127.0.0.1:${port} accept-proxy
  http-request return status 200 content-type text/plain lf-string "%[src] %[src_port] %[dst] %[dst_port]"`;
  return startHaproxy(stage, here, sections, [['tcp', port]]);
}

export interface Exchanged {
  readonly answer: Buffer;
  readonly localPort: number | undefined;
}

/** Says everything, ends, and hears the other side out. */
export async function exchange(from: string, to: string, port: number, says: Uint8Array): Promise<Exchanged> {
  const socket = net.connect({ host: to, port, localAddress: from, allowHalfOpen: true });
  const chunks: Buffer[] = [];
  socket.on('data', (chunk) => chunks.push(chunk));
  await once(socket, 'connect');
  const { localPort } = socket;
  socket.end(says);
  await once(socket, 'end');
  return { answer: Buffer.concat(chunks), localPort };
}

export async function echoServer(stage: Stage): Promise<number> {
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => socket.destroy());
    socket.pipe(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  stage.undo(() => server.close());
  return (server.address() as net.AddressInfo).port;
}

/** A dualport that trusts loopback to name clients. */
export async function accepting(
  stage: Stage,
  to: number,
  args: readonly string[] = [],
  at?: number,
): Promise<[Dualport, number]> {
  const port = at ?? (await freePort());
  const published = ['-p', `127.0.0.1:${port}:${to}`, '-t', '127.0.0.1'];
  const dualport = await stage.dualport(here, [...published, '--accept-proxy', '127.0.0.0/8', ...args]);
  return [dualport, port];
}

export const request = Buffer.from('GET / HTTP/1.0\r\n\r\n');
export const bodyOf = (answer: Buffer): string => String(answer).split('\r\n\r\n')[1] ?? '';
