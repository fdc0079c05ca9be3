/**
 * A Docker Engine of lists and events without containers, on a unix socket, that can be as unreliable as the
 * real one never is for long: its answers hang, break off or are garbage, and its events get lost, come twice or
 * in another order. It keeps a record of what it was asked.
 */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ListedContainer, ListedNetwork } from './docker-lists.ts';

/** What is wrong with an answer. */
export type Fault =
  | 'hang'
  | 'hang up'
  | 'break off'
  | 'garbage'
  | 'error'
  | 'forbidden'
  | 'endless'
  | 'an object'
  | 'strange elements'
  | 'nothing';

/** What happens to an event on its way. */
export type Delivery = 'in order' | 'lost' | 'twice' | 'behind the next';

export interface EngineEvent {
  readonly Type: string;
  readonly Action: string;
  readonly id: string;
  readonly attributes?: Readonly<Record<string, string>>;
}

export class FakeEngine {
  readonly socket: string;
  containers: readonly ListedContainer[] = [];
  networks: readonly ListedNetwork[] = [];
  version: Readonly<Record<string, unknown>> = {
    Version: '28.0.0',
    ApiVersion: '1.48',
    MinAPIVersion: '1.24',
  };
  /** By path; holds until it is taken away. */
  readonly faults = new Map<string, Fault>();
  /** Method and target of each request. */
  readonly asked: string[] = [];
  /** Before an answer is given, in milliseconds. */
  slowMs = 0;
  readonly #streams = new Set<ServerResponse>();
  readonly #sockets = new Set<Socket>();
  #held: string | undefined;
  #clock = 1_700_000_000_000_000_000n;
  #server: Server | undefined;

  constructor(socket: string) {
    this.socket = socket;
  }

  async open(): Promise<void> {
    const server = createServer((request, response) => void this.#answer(request, response));
    server.on('connection', (socket) => {
      this.#sockets.add(socket.on('close', () => this.#sockets.delete(socket)).on('error', () => {}));
    });
    this.#server = server.listen(this.socket);
    await once(server, 'listening');
  }

  /** As dockerd does when it ends: connections break, and the socket is gone. */
  async close(): Promise<void> {
    const server = this.#server;
    if (server === undefined) return;
    this.#server = undefined;
    for (const socket of this.#sockets) socket.destroy();
    this.#streams.clear();
    server.close();
    await once(server, 'close');
  }

  /** Clients that listen to events. */
  get listeners(): number {
    return this.#streams.size;
  }

  emit(event: EngineEvent, delivery: Delivery = 'in order'): void {
    this.#clock += 1_000_000n;
    const { Type, Action, id, attributes = {} } = event;
    const actor = JSON.stringify({ ID: id, Attributes: attributes });
    const line = `{"Type":"${Type}","Action":"${Action}","Actor":${actor},"timeNano":${this.#clock}}\n`;
    if (delivery === 'lost') return;
    const held = this.#held;
    this.#held = undefined;
    if (delivery === 'behind the next' && held === undefined) {
      this.#held = line;
      return;
    }
    this.say(line + (delivery === 'twice' ? line : '') + (held ?? ''));
  }

  /** Anything, to everybody who listens to events. */
  say(text: string | Buffer): void {
    for (const stream of this.#streams) stream.write(text);
  }

  /** Ends the streams of events, well or in the middle. */
  cut(cleanly: boolean): void {
    for (const stream of this.#streams) {
      if (cleanly) stream.end();
      else stream.destroy();
    }
    this.#streams.clear();
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.asked.push(`${request.method} ${request.url}`);
    response.on('error', () => {});
    const path = (request.url ?? '').replace(/^\/v[\d.]+/, '').replace(/\?.*$/, '');
    // What was true when it was asked.
    const answers: Readonly<Record<string, unknown>> = {
      '/version': this.version,
      '/containers/json': this.containers,
      '/networks': this.networks,
    };
    if (this.slowMs > 0) await sleep(this.slowMs);
    const fault = this.faults.get(path);
    if (fault !== undefined) return spoil(fault, response);
    if (Object.hasOwn(answers, path)) return reply(response, answers[path]);
    if (path !== '/events') return reply(response, { message: 'page not found' }, 404);
    response.writeHead(200, { 'content-type': 'application/json' });
    response.flushHeaders();
    this.#streams.add(response.on('close', () => this.#streams.delete(response)));
  }
}

function reply(response: ServerResponse, value: unknown, status = 200): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(value));
}

const endlessChunk = Buffer.alloc(1024 * 1024, '[');

function spoil(fault: Fault, response: ServerResponse): void {
  switch (fault) {
    case 'hang':
      return;
    case 'hang up':
      response.destroy();
      return;
    case 'break off':
      response.writeHead(200, { 'content-length': 1000 });
      response.write('[{"Id":"');
      setTimeout(() => response.destroy(), 5);
      return;
    case 'garbage':
      response.end('\u0000<html>\r\n]]}{"');
      return;
    case 'error':
      return reply(response, { message: 'no luck today' }, 500);
    case 'forbidden':
      return reply(response, { message: 'not allowed here' }, 403);
    case 'endless':
      return pour(response);
    case 'an object':
      return reply(response, { Id: 'x' });
    case 'strange elements':
      return reply(response, [null, 7, { Id: 'x' }, []]);
    case 'nothing':
      response.end();
  }
}

/** As fast as it is read. */
function pour(response: ServerResponse): void {
  while (!response.destroyed && response.write(endlessChunk));
  response.once('drain', () => pour(response));
}
