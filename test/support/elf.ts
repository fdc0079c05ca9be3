/** What a shared object is made for and what it needs, in the words of readelf. */
import { execFileSync } from 'node:child_process';

export interface SharedObject {
  /** Such as `ELF64`. */
  readonly class: string;
  readonly machine: string;
  readonly libraries: readonly string[];
  /** Symbols that somebody else has to define, without their versions. */
  readonly undefined: readonly string[];
  readonly defined: ReadonlySet<string>;
  /** Versions of glibc's symbols, as `2.17`. */
  readonly glibcVersions: readonly string[];
  readonly sections: readonly string[];
}

export function readSharedObject(path: string): SharedObject {
  const header = readelf('--file-header', path);
  const symbols = [...readelf('--dyn-syms', path).matchAll(symbolLine)].map((match) => ({
    weak: match[1] === 'WEAK',
    undefined: match[2] === 'UND',
    name: match[3] ?? '',
  }));
  return {
    class: /Class: +(\S+)/.exec(header)?.[1] ?? '',
    machine: /Machine: +(.+)/.exec(header)?.[1] ?? '',
    libraries: allOf(/\(NEEDED\).*\[(.+)\]/g, readelf('--dynamic', path)),
    undefined: symbols.filter((symbol) => symbol.undefined && !symbol.weak).map(({ name }) => name),
    defined: new Set(symbols.filter((symbol) => !symbol.undefined).map(({ name }) => name)),
    glibcVersions: allOf(/\bGLIBC_([0-9.]+)/g, readelf('--version-info', path)),
    sections: allOf(/^ +\[ *\d+\] (\S+)/gm, readelf('--section-headers', path)),
  };
}

/** `  12: 0000000000000000     0 FUNC    GLOBAL DEFAULT  UND malloc@GLIBC_2.2.5 (3)` */
const symbolLine = /^ +\d+: [0-9a-f]+ +\S+ \S+ +(\S+) +\S+ +(\S+) ([^\s@]+)/gm;

function readelf(what: string, path: string): string {
  return execFileSync('readelf', ['--wide', what, path], { encoding: 'utf8', maxBuffer: 64 << 20 });
}

function allOf(pattern: RegExp, text: string): readonly string[] {
  return [...text.matchAll(pattern)].map((match) => match[1] ?? '');
}
