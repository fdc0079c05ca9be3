/** Which version of a program is here, or what to install. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';

/** The first match of `pattern` in what `command` prints; fails naming the Debian package. */
export function versionOf(command: readonly string[], pattern: RegExp, debianPackage: string): string {
  const [program = '', ...args] = command;
  const { stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8' });
  if (error !== undefined) throw new Error(`${program} is not installed (apt-get install ${debianPackage})`);
  const [, version] = pattern.exec(`${stdout}${stderr}`) ?? [];
  return version ?? 'unknown';
}

/** Version of a Debian package, for programs that do not tell their own. */
export function packagedVersion(debianPackage: string, file: string): string {
  if (!existsSync(file)) throw new Error(`${file} is not installed (apt-get install ${debianPackage})`);
  const { stdout } = spawnSync('dpkg-query', ['-W', debianPackage], { encoding: 'utf8' });
  const [, version] = /\t(.+)/.exec(stdout ?? '') ?? [];
  return `${debianPackage} ${version ?? 'of unknown version'}`;
}
