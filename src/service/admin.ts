/**
 * Metrics, health and status over HTTP on a unix socket or on addresses the operator wrote: GET only, nothing
 * can be changed here.
 *
 *   /metrics  Prometheus text      /livez   200 while the process answers
 *   /status   JSON                 /readyz  200 while new flows are accepted, 503 in a drain
 *
 * On a loopback address only requests for a loopback host are answered, so that a web page whose name was
 * made to point here cannot read along. A socket file left by a killed process is replaced, a live one never.
 */
import { chmodSync, unlinkSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { ListenOptions } from 'node:net';
import type { AdminAddress } from '../config/admin-address.ts';
import { DualportError, errnoOf, listenError } from '../errors.ts';
import {
  type Endpoint,
  formatEndpoint,
  formatHost,
  isIpv4,
  isLoopback,
  tryParseAddress,
} from '../net/address.ts';
import type { HostFacts } from './host.ts';
import { socketTrouble } from './socket-trouble.ts';
import { isStaleSocket } from './stale-socket.ts';

export interface AdminPages {
  readonly metrics: () => string;
  readonly status: () => object;
  readonly ready: () => boolean;
}

export interface Admin {
  close(): void;
}

interface Page {
  readonly code: number;
  readonly type: string;
  readonly body: string;
}

const serverOptions = {
  maxHeaderSize: 8192,
  headersTimeout: 5000,
  requestTimeout: 10_000,
  keepAliveTimeout: 5000,
  // Node looks for those that are too slow every 30 s otherwise: so long a few silent clients would keep probes out.
  connectionsCheckingInterval: 1000,
};
/** Each holds a descriptor of those that are reserved for the process itself. */
const mostConnections = 8;

/** @throws DualportError when an address cannot be listened on; nothing is left bound then */
export async function serveAdmin(address: AdminAddress, pages: AdminPages, host: HostFacts): Promise<Admin> {
  const servers: Server[] = [];
  const admin = {
    close: () => {
      for (const server of servers) server.close().closeAllConnections();
    },
  };
  try {
    if (address.kind === 'path') servers.push(await serveSocket(address.path, pages));
    else
      for (const endpoint of reachable(address.endpoints, host))
        servers.push(await serveTcp(endpoint, pages, host.lowPort));
  } catch (error) {
    admin.close();
    throw error;
  }
  return admin;
}

/** A port alone stands for both loopback addresses; a host without IPv6 has only one of them. */
function reachable(endpoints: readonly Endpoint[], host: HostFacts): readonly Endpoint[] {
  if (host.ipv6 || endpoints.length < 2) return endpoints;
  return endpoints.filter(({ address }) => isIpv4(address));
}

async function serveTcp(endpoint: Endpoint, pages: AdminPages, lowPort: number): Promise<Server> {
  const guarded = isLoopback(endpoint.address);
  const server = makeServer(pages, guarded);
  try {
    await listening(server, { host: formatHost(endpoint), port: endpoint.port, ipv6Only: true });
  } catch (error) {
    throw listenError(error, 'admin', formatEndpoint(endpoint), lowPort);
  }
  return server;
}

async function serveSocket(path: string, pages: AdminPages): Promise<Server> {
  const server = makeServer(pages, false);
  try {
    await listening(server, { path }).catch(async (error: unknown) => {
      if (errnoOf(error) !== 'EADDRINUSE' || !(await isStaleSocket(path))) throw error;
      unlinkSync(path);
      await listening(server, { path });
    });
    chmodSync(path, 0o660);
  } catch (error) {
    const why = socketTrouble(path, error);
    throw new DualportError('LISTEN', `cannot serve --admin on ${path}: ${why}`, { cause: error });
  }
  return server;
}

function makeServer(pages: AdminPages, guarded: boolean): Server {
  const server = createServer(serverOptions, (request, response) => {
    const page =
      guarded && !asksLoopback(request)
        ? plain(403, 'forbidden: ask for a loopback host\n')
        : answer(request, pages);
    send(request, response, page);
  });
  server.maxConnections = mostConnections;
  return server;
}

function answer(request: IncomingMessage, pages: AdminPages): Page {
  if (request.method !== 'GET' && request.method !== 'HEAD')
    return plain(405, 'method not allowed: use GET\n');
  switch (request.url) {
    case '/livez':
      return plain(200, 'ok\n');
    case '/readyz':
      return pages.ready() ? plain(200, 'ok\n') : plain(503, 'draining\n');
    case '/metrics':
      return { code: 200, type: 'text/plain; version=0.0.4; charset=utf-8', body: pages.metrics() };
    case '/status':
      return { code: 200, type: 'application/json', body: `${JSON.stringify(pages.status())}\n` };
    default:
      return plain(404, 'not found: there is /metrics, /status, /livez and /readyz\n');
  }
}

function send(request: IncomingMessage, response: ServerResponse, { code, type, body }: Page): void {
  response.writeHead(code, {
    'content-type': type,
    'content-length': Buffer.byteLength(body),
    'x-content-type-options': 'nosniff',
    'cache-control': 'no-store',
  });
  response.end(request.method === 'HEAD' ? undefined : body);
}

function plain(code: number, body: string): Page {
  return { code, type: 'text/plain; charset=utf-8', body };
}

function asksLoopback(request: IncomingMessage): boolean {
  const host = (request.headers.host ?? '').replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1');
  const address = tryParseAddress(host);
  return host === 'localhost' || (address !== undefined && isLoopback(address));
}

function listening(server: Server, options: ListenOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(options, () => {
      server.off('error', reject);
      // accept(2) failed for one connection; the server itself is sound.
      server.on('error', () => {});
      resolve();
    });
  });
}
