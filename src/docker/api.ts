/**
 * The engine's API, as much of it as dualport uses: four calls that read. The only file that knows dockerode,
 * which is loaded when it is first needed: it takes 20 MB and half a second that nobody else should pay.
 *
 * dockerode keeps whole answers in memory, however long they are, and waits for ever. So every answer is taken
 * from it as a stream and read here, with bounds on its length and on the time it takes. Lists are read element
 * by element, and one that is too long is passed over: see json-array.ts.
 */
import type { IncomingMessage } from 'node:http';
import { addAbortSignal } from 'node:stream';
import { type EngineAddress, formatEngineAddress } from '../config/docker-options.ts';
import type { DualportError } from '../errors.ts';
import { readBeginning, readContainer } from './container.ts';
import { type DockerEvent, eventFilters, readEvent } from './events.ts';
import { recordOf, textOf } from './json.ts';
import { JsonArray } from './json-array.ts';
import { readLines } from './lines.ts';
import { readNetwork } from './network.ts';
import type { Snapshot } from './routes.ts';
import { callFailed, type calls, engineTrouble, refusedCall, tooSlow } from './trouble.ts';

type Path = (typeof calls)[number];

/** One container, with all its labels; what Docker writes of one without is 2 KB. */
const maxElementBytes = 1024 * 1024;
/** A whole list. It is never in memory as a whole: this bounds the time it takes. */
const maxListBytes = 64 * 1024 * 1024;
const maxElements = 10_000;
const maxVersionBytes = 64 * 1024;
/** An event holds all labels of its container. */
const maxEventBytes = 1024 * 1024;
/** Of an answer that is a refusal. */
const maxRefusalBytes = 4096;

/** Docker 20.10 has it, and the list of containers says all that is needed. */
const oldestApi = [1, 41] as const;
/** The newest whose answers were seen; an engine that knows more is asked in this one. */
const newestApi = [1, 50] as const;

/** What was listed, and what of it could not be read. */
interface Listed<T> {
  readonly items: readonly T[];
  /** The beginnings of elements that were too long. */
  readonly tooLong: readonly string[];
}

/** As much of dockerode as is used. */
interface Modem {
  version: string | undefined;
  dial(options: object, answered: (error: unknown, response: IncomingMessage | null) => void): void;
}

/** Every status is an answer: a refusal is read here, with a bound, and not there. */
const everyStatus = Object.fromEntries(Array.from({ length: 500 }, (_, i) => [100 + i, true]));

export class DockerApi {
  readonly address: EngineAddress;
  readonly #modem: Modem;
  readonly #answerMs: number;

  /** @param answerMs how long a whole answer may take, and of the events the first byte of it */
  static async open(address: EngineAddress, answerMs = 10_000): Promise<DockerApi> {
    return new DockerApi(address, await loadModem(address), answerMs);
  }

  private constructor(address: EngineAddress, modem: Modem, answerMs: number) {
    this.address = address;
    this.#modem = modem;
    this.#answerMs = answerMs;
  }

  /**
   * Asks what the engine is, and from then on speaks the newest version of the API that both know.
   *
   * @returns the engine's version
   */
  version(life: AbortSignal): Promise<string> {
    // What was agreed with an engine that has been replaced since is nothing to ask this one in.
    this.#modem.version = undefined;
    return this.#call('/version', {}, life, async (response) => {
      const text = await readText(response, maxVersionBytes);
      const answer = recordOf(parseJson(text));
      const [newest, oldest] = [apiVersion(answer['ApiVersion']), apiVersion(answer['MinAPIVersion'])];
      if (newest === undefined)
        throw engineTrouble(this.address, 'is none: its /version is not one of Docker');
      if (isOlder(newest, oldestApi)) throw tooOld(this.address, newest);
      const common = isOlder(newest, newestApi) ? newest : newestApi;
      this.#modem.version = `v${(oldest !== undefined && isOlder(common, oldest) ? oldest : common).join('.')}`;
      return textOf(answer['Version'])
        .replaceAll(/[^\w.+-]/g, '')
        .slice(0, 40);
    });
  }

  /** Everything there is now. */
  async list(life: AbortSignal): Promise<Snapshot> {
    const [containers, networks] = await Promise.all([
      this.#list('/containers/json', readContainer, life),
      this.#list('/networks', readNetwork, life),
    ]);
    return {
      containers: containers.items,
      networks: networks.items,
      unread: containers.tooLong.map(readBeginning),
    };
  }

  /** What happens from now on; the promise resolves once the engine listens. */
  async events(life: AbortSignal): Promise<AsyncIterable<DockerEvent>> {
    const response = await this.#call('/events', { filters: eventFilters }, life, async (answer) => answer);
    return this.#readEvents(addAbortSignal(life, response));
  }

  async *#readEvents(response: IncomingMessage): AsyncGenerator<DockerEvent> {
    try {
      for await (const line of readLines(response, maxEventBytes)) yield readEvent(line);
    } catch (error) {
      throw callFailed(this.address, error);
    } finally {
      response.destroy();
    }
  }

  #list<T>(path: Path, read: (value: unknown) => T | undefined, life: AbortSignal): Promise<Listed<T>> {
    return this.#call(path, {}, life, async (response) => {
      const items: T[] = [];
      const tooLong: string[] = [];
      const array = new JsonArray(maxElementBytes, {
        element: (text) => {
          const item = read(parseJson(text));
          // Left out it would look as if it had ended.
          if (item === undefined)
            throw engineTrouble(this.address, `answered GET ${path} with what is none of Docker's`);
          items.push(item);
        },
        tooLong: (beginning) => tooLong.push(beginning),
      });
      let bytes = 0;
      for await (const chunk of response as AsyncIterable<Buffer>) {
        bytes += chunk.length;
        if (!array.push(chunk))
          throw engineTrouble(this.address, `answered GET ${path} with what is no list`);
        if (bytes > maxListBytes || items.length + tooLong.length > maxElements) throw this.#tooMuch(path);
      }
      if (!array.complete)
        throw engineTrouble(this.address, `hung up in the middle of its answer to GET ${path}`);
      return { items, tooLong };
    });
  }

  #tooMuch(path: Path): DualportError {
    const most = `${maxListBytes / 1024 / 1024} MiB and ${maxElements} elements`;
    return engineTrouble(this.address, `answered GET ${path} with more than is read: allowed are ${most}`);
  }

  /** One call within its time, its answer read with it. What goes wrong is said in the words of trouble.ts. */
  async #call<T>(
    path: Path,
    query: object,
    life: AbortSignal,
    read: (response: IncomingMessage) => Promise<T>,
  ): Promise<T> {
    const ending = new AbortController();
    const end = () => ending.abort();
    const timer = setTimeout(end, this.#answerMs);
    life.addEventListener('abort', end, { once: true });
    let response: IncomingMessage | undefined;
    try {
      if (life.aborted) end();
      response = await this.#dial(path, query, ending.signal);
      // Where the answer is read to its end, that end is in time as well.
      const answer = response;
      ending.signal.addEventListener('abort', () => answer.destroy(), { once: true });
      if (answer.statusCode !== 200) {
        throw refusedCall(
          this.address,
          path,
          answer.statusCode ?? 0,
          await readStart(answer, maxRefusalBytes),
        );
      }
      return await read(answer);
    } catch (error) {
      response?.destroy();
      if (ending.signal.aborted && !life.aborted) throw tooSlow(this.address, path, this.#answerMs);
      throw callFailed(this.address, error);
    } finally {
      clearTimeout(timer);
      life.removeEventListener('abort', end);
    }
  }

  #dial(path: Path, query: object, abortSignal: AbortSignal): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      abortSignal.addEventListener('abort', () => reject(new Error('aborted')), { once: true });
      const options = { path: `${path}?`, method: 'GET', options: query, abortSignal };
      const stream = { isStream: true, statusCodes: everyStatus };
      this.#modem.dial({ ...options, ...stream }, (error, response) => {
        if (response === null || error) return reject(error);
        // Whoever waited may have gone; without a listener the error of an aborted answer would end the process.
        response.on('error', () => {});
        resolve(response);
      });
    });
  }
}

/** dockerode itself reads DOCKER_HOST and the certificates beside it, even when it is told where to go. */
async function loadModem(address: EngineAddress): Promise<Modem> {
  const { default: Docker } = await import('dockerode');
  const dockerHost = process.env['DOCKER_HOST'];
  delete process.env['DOCKER_HOST'];
  try {
    // A connection of its own for each call: one that was kept may be that of an engine that has gone.
    const headers = { connection: 'close' };
    const where =
      address.kind === 'socket'
        ? { socketPath: address.path }
        : { host: `http://${formatEngineAddress(address).slice('tcp://'.length)}`, port: address.port };
    return new Docker({ ...where, headers }).modem as unknown as Modem;
  } finally {
    if (dockerHost !== undefined) process.env['DOCKER_HOST'] = dockerHost;
  }
}

type ApiVersion = readonly [major: number, minor: number];

function apiVersion(text: unknown): ApiVersion | undefined {
  const [, major, minor] = /^(\d{1,3})\.(\d{1,3})$/.exec(textOf(text)) ?? [];
  return major === undefined ? undefined : [Number(major), Number(minor)];
}

function isOlder(a: ApiVersion, b: ApiVersion): boolean {
  return a[0] < b[0] || (a[0] === b[0] && a[1] < b[1]);
}

function tooOld(address: EngineAddress, version: ApiVersion): DualportError {
  const found = `speaks version ${version.join('.')} of the API`;
  return engineTrouble(
    address,
    `${found}; allowed: ${oldestApi.join('.')} (Docker 20.10) and later: update Docker`,
  );
}

async function readText(response: IncomingMessage, maxBytes: number): Promise<string> {
  const text = await readStart(response, maxBytes + 1);
  if (Buffer.byteLength(text) > maxBytes) throw new Error(`its answer is longer than ${maxBytes} bytes`);
  return text;
}

async function readStart(response: IncomingMessage, maxBytes: number): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    chunks.push(chunk);
    bytes += chunk.length;
    if (bytes >= maxBytes) break;
  }
  return Buffer.concat(chunks).toString('utf8', 0, maxBytes);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
