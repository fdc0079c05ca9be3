/**
 * The containers there are now, for launchers: one GET to the engine, without dockerode. To load that takes 0.3 s, in
 * which nothing else happens in the process, and launchers come while it relays; api.ts has it loaded before anything
 * listens. The answer is read as there, element by element and with the same bounds.
 */
import { type ClientRequest, type IncomingMessage, request } from 'node:http';
import type { EngineAddress } from '../config/docker-options.ts';
import { type Container, readContainer } from './container.ts';
import { JsonArray } from './json-array.ts';
import type { ListContainers } from './lookup.ts';
import { callFailed, engineTrouble, refusedCall, tooSlow } from './trouble.ts';

const path = '/containers/json';
/** While dockerd boots it takes a call and does not answer. */
const answerMs = 5000;
const mostBytes = 64 * 1024 * 1024;
const mostElementBytes = 1024 * 1024;
const mostRefusalBytes = 4096;

export function containersOf(engine: EngineAddress): ListContainers {
  return (life) =>
    list(engine, life).catch((error: unknown) => {
      throw callFailed(engine, error);
    });
}

function list(engine: EngineAddress, life: AbortSignal): Promise<readonly Container[]> {
  const place =
    engine.kind === 'socket' ? { socketPath: engine.path } : { host: engine.host, port: engine.port };
  return new Promise((resolve, reject) => {
    // A connection of its own: one that was kept may be that of an engine that has gone.
    const call: ClientRequest = request({ ...place, path, headers: { connection: 'close' }, signal: life });
    const late = setTimeout(() => call.destroy(tooSlow(engine, path, answerMs)), answerMs);
    call
      .on('response', (response) => readAnswer(engine, response).then(resolve, reject))
      .on('error', reject)
      .on('close', () => clearTimeout(late))
      .end();
  });
}

async function readAnswer(engine: EngineAddress, response: IncomingMessage): Promise<readonly Container[]> {
  if (response.statusCode !== 200) {
    throw refusedCall(engine, path, response.statusCode ?? 0, await readStart(response));
  }
  const containers: Container[] = [];
  const array = new JsonArray(mostElementBytes, {
    element: (text) => containers.push(...containerOf(text)),
    // Whoever is behind such labels is not found; everybody else is.
    tooLong: () => {},
  });
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (!array.push(chunk)) throw engineTrouble(engine, `answered GET ${path} with what is no list`);
    if (bytes > mostBytes) throw engineTrouble(engine, `answered GET ${path} with more than is read`);
  }
  if (!array.complete) throw engineTrouble(engine, `hung up in the middle of its answer to GET ${path}`);
  return containers;
}

async function readStart(response: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of response as AsyncIterable<Buffer>) {
    text += chunk;
    if (text.length >= mostRefusalBytes) break;
  }
  return text.slice(0, mostRefusalBytes);
}

/** None, for what is no container. */
function containerOf(text: string): readonly Container[] {
  try {
    const container = readContainer(JSON.parse(text));
    return container === undefined ? [] : [container];
  } catch {
    return [];
  }
}
