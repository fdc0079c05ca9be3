/** What stands between dualport and the engine where that is done well: it lets four questions pass, and nothing else. */
import { once } from 'node:events';
import { createServer, request } from 'node:http';
import type { Stage } from './dualport.ts';

export interface SocketProxy {
  /** Of what was let through and of what was not: method and path, without the version. */
  readonly passed: ReadonlySet<string>;
  readonly refused: ReadonlySet<string>;
}

const allowed = /^(?:\/v1\.\d+)?(\/version|\/events|\/containers\/json|\/networks)(?:\?.*)?$/;

/**
 * Listens on the socket `path`, and passes on to the engine at `engine`.
 *
 * @param deaf the stream of events is there, and nothing comes through it
 */
export async function startSocketProxy(
  stage: Stage,
  path: string,
  engine: string,
  { deaf = false } = {},
): Promise<SocketProxy> {
  const passed = new Set<string>();
  const refused = new Set<string>();
  const server = createServer((asked, answer) => {
    const [, what] = allowed.exec(asked.url ?? '') ?? [];
    if (asked.method !== 'GET' || what === undefined) {
      refused.add(`${asked.method} ${asked.url}`);
      answer.writeHead(403).end('forbidden');
      return;
    }
    passed.add(`GET ${what}`);
    const onward = request({ socketPath: engine, path: asked.url, headers: asked.headers }, (given) => {
      answer.writeHead(given.statusCode ?? 502, given.headers);
      answer.flushHeaders();
      if (deaf && what === '/events') given.resume();
      else given.pipe(answer);
    });
    onward.on('error', () => answer.destroy());
    answer.on('close', () => onward.destroy());
    onward.end();
  });
  server.listen(path);
  await once(server, 'listening');
  stage.undo(() => {
    server.close();
    server.closeAllConnections();
  });
  return { passed, refused };
}
