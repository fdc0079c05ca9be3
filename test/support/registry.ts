/**
 * A registry for npm on loopback that has what is installed in this checkout, in these versions: an install as a
 * user's, without the network.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';

export class Registry {
  readonly #modules: string;
  readonly #server = http.createServer((request, response) => this.#answer(request, response));

  /** @param modules a folder node_modules/ */
  constructor(modules: string) {
    this.#modules = modules;
  }

  async open(): Promise<void> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/`;
  }

  /** `/pino` tells of a package, `/pino/-/pino.tgz` is its archive. */
  #answer(request: http.IncomingMessage, response: http.ServerResponse): void {
    const [name = '', archive] = decodeURIComponent(request.url ?? '')
      .slice(1)
      .split('/-/');
    const folder = join(this.#modules, name);
    if (!existsSync(join(folder, 'package.json'))) response.writeHead(404).end();
    else if (archive === undefined) response.end(JSON.stringify(this.#about(name, folder)));
    else {
      const tar = ['-cz', '-C', folder, '--exclude=./node_modules', '--transform=s,^[.],package,', '.'];
      spawn('tar', tar, { stdio: ['ignore', 'pipe', 'inherit'] }).stdout.pipe(response);
    }
  }

  #about(name: string, folder: string): object {
    const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
    const tarball = `${this.url}${name}/-/archive.tgz`;
    const versions = { [manifest.version]: { ...manifest, dist: { tarball } } };
    return { name, 'dist-tags': { latest: manifest.version }, versions };
  }
}
