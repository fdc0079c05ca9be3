/**
 * `dualport demo`: the shortest way to see what dualport is for. A small HTTP program that listens on IPv4
 * loopback only is published on [::] with PROXY protocol version 2; its answer shows the address it saw as
 * its peer, and the client's address that the header gave it.
 */
import { once } from 'node:events';
import { createServer as createHttpServer, type Server as HttpServer } from 'node:http';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { networkInterfaces } from 'node:os';
import { loadConfig } from '../config/load.ts';
import { DualportError, exitStatus } from '../errors.ts';
import { makeLog } from '../log.ts';
import { formatEndpoint } from '../net/address.ts';
import { decode } from '../proxy-protocol/codec.ts';
import { isInUse } from '../service/bind.ts';
import { listenToSignals, serveUntil } from './serve.ts';

export async function demo(port: string): Promise<number> {
  if (!/^[1-9]\d{0,4}$/.test(port) || Number(port) > 65535) {
    throw new DualportError(
      'USAGE',
      `${JSON.stringify(port)} is not a port for the demonstration: write 1 to 65535`,
    );
  }
  const signals = listenToSignals('stop');
  const program = await startProgram();
  const { port: programPort } = program.address() as AddressInfo;
  const load = () =>
    loadConfig({
      flags: {
        publish: [`[::]:${port}:${programPort}`],
        to: ['127.0.0.1'],
        source: 'proxy-v2',
        accessLog: true,
      },
      env: {},
    });
  try {
    const config = load();
    const log = makeLog({ level: 'info', format: 'auto' });
    await serveUntil(signals, config, load, log, () => explain(port, programPort));
  } catch (error) {
    throw isInUse(error) ? onAnother(port, error) : error;
  } finally {
    program.close();
  }
  return exitStatus.done;
}

/** Where there is no flag to publish another port with. */
function onAnother(port: string, error: DualportError): DualportError {
  const other = Number(port) < 65535 ? Number(port) + 1 : 8080;
  const message = `${error.message}, as in npm start -- ${other} (dualport demo ${other})`;
  return new DualportError(error.code, message, { cause: error });
}

function explain(port: string, programPort: number): void {
  process.stdout.write(`
A program listens on 127.0.0.1:${programPort}, on IPv4 only. dualport publishes it on [::]:${port}.
Try, from another terminal:

  curl 'http://[::1]:${port}/'
${globalIpv6()
  .map((address) => `  curl 'http://[${address}]:${port}/'   (also from another machine)\n`)
  .join('')}
The answer shows what the program sees. Ctrl-C ends the demonstration.

`);
}

/** An address other machines may know this one by. */
function globalIpv6(): readonly string[] {
  const addresses = Object.values(networkInterfaces()).flatMap((entries) => entries ?? []);
  const global = addresses.filter(
    ({ family, internal, scopeid }) => family === 'IPv6' && !internal && !scopeid,
  );
  return global.slice(0, 1).map(({ address }) => address);
}

/** An HTTP server that reads a PROXY header first, as nginx does with `listen … proxy_protocol`. */
async function startProgram(): Promise<Server> {
  const clients = new WeakMap<Socket, string>();
  const http = makeHttp(clients);
  const server = createServer((socket) => {
    socket.on('error', () => {});
    socket.once('data', (first: Buffer) => {
      // dualport sends the header in one piece with what the client said first.
      const decoded = decode(first, 'tcp');
      if (decoded.state !== 'done') return socket.destroy();
      clients.set(socket, decoded.header.source ? formatEndpoint(decoded.header.source) : 'nobody');
      socket.unshift(first.subarray(decoded.length));
      return http.emit('connection', socket);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server;
}

function makeHttp(clients: WeakMap<Socket, string>): HttpServer {
  return createHttpServer((request, response) => {
    const { remoteAddress, remotePort } = request.socket;
    response.setHeader('connection', 'close');
    response.end(
      `Hello from a program that listens on IPv4 only.\n` +
        `  its peer, as the socket says:   ${remoteAddress}:${remotePort}\n` +
        `  you, as the PROXY header says:  ${clients.get(request.socket)}\n`,
    );
  });
}
