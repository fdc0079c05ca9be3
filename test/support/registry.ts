/**
 * A registry for npm on loopback that has what is installed in this checkout, in these versions: an install as a
 * user's, without the network.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';

export class Registry {
  /** By name and version: of some packages there are several. */
  readonly #folders = new Map<string, Map<string, string>>();
  readonly #server = http.createServer((request, response) => this.#answer(request, response));

  /** @param modules a folder node_modules/ */
  constructor(modules: string) {
    this.#collect(modules);
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

  /** `/pino` tells of a package, `/pino/-/10.0.0.tgz` is its archive. */
  #answer(request: http.IncomingMessage, response: http.ServerResponse): void {
    const [name = '', archive = ''] = decodeURIComponent(request.url ?? '')
      .slice(1)
      .split('/-/');
    const versions = this.#folders.get(name);
    const folder = versions?.get(archive.replace(/\.tgz$/, ''));
    if (folder !== undefined) {
      const tar = ['-cz', '-C', folder, '--exclude=./node_modules', '--transform=s,^[.],package,', '.'];
      spawn('tar', tar, { stdio: ['ignore', 'pipe', 'inherit'] }).stdout.pipe(response);
    } else if (versions === undefined || archive !== '') response.writeHead(404).end();
    else response.end(JSON.stringify(this.#about(name, versions)));
  }

  #about(name: string, folders: ReadonlyMap<string, string>): object {
    const manifests = [...folders].map(([version, folder]) => {
      const dist = { tarball: `${this.url}${name}/-/${version}.tgz` };
      return [version, { ...readManifest(folder), dist }] as const;
    });
    return { name, 'dist-tags': { latest: manifests[0]?.[0] }, versions: Object.fromEntries(manifests) };
  }

  /** With what packages have in a node_modules/ of their own. */
  #collect(modules: string): void {
    for (const folder of packagesIn(modules)) {
      const { name, version } = readManifest(folder);
      const versions = this.#folders.get(name) ?? new Map<string, string>();
      this.#folders.set(name, versions.set(version, versions.get(version) ?? folder));
      this.#collect(join(folder, 'node_modules'));
    }
  }
}

function packagesIn(modules: string): readonly string[] {
  if (!existsSync(modules)) return [];
  const names = readdirSync(modules).flatMap((name) =>
    name.startsWith('@') ? readdirSync(join(modules, name)).map((scoped) => join(name, scoped)) : [name],
  );
  return names
    .map((name) => join(modules, name))
    .filter((folder) => existsSync(join(folder, 'package.json')));
}

function readManifest(folder: string): { readonly name: string; readonly version: string } {
  return JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
}
