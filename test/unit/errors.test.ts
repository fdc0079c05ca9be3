import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { run } from '../../src/cli/program.ts';
import { loadConfig } from '../../src/config/load.ts';
import type { Flags } from '../../src/config/sources.ts';
import { parseDaemonJson } from '../../src/docker/daemon-json.ts';
import { refuseEngine } from '../../src/engine/select.ts';
import {
  DualportError,
  type ErrorCode,
  errnoOf,
  errorCodes,
  exitStatus,
  listenError,
  messageOf,
  noIpv6Error,
} from '../../src/errors.ts';
import { foreignError } from '../../src/transparent/apply.ts';
import { lockPlace } from '../../src/transparent/lock.ts';
import { must, toolError } from '../../src/transparent/system.ts';

const doc = readFileSync(new URL('../../../docs/errors.md', import.meta.url), 'utf8');

interface Section {
  readonly code: string;
  readonly means: string;
  readonly exit: number;
  /** What dualport prints, without its name. */
  readonly example: string;
  readonly advice: string;
}

const shape =
  /^(?<code>\w+)\n\n(?<means>[^\n]+)\.\n\nExit status: (?<exit>\d+)\n\n```text\ndualport: (?<example>[^\n]+)\n```\n\n(?<advice>.+)$/s;

/** The sections of the document, in their order. */
const sections: readonly Section[] = doc
  .split(/^## /m)
  .slice(1)
  .map((text) => {
    const { code = '', means = '', exit = '', example = '', advice = '' } = shape.exec(text)?.groups ?? {};
    assert.notEqual(code, '', `a section is not of the form the others have: ${text.slice(0, 40)}`);
    return { code, means, exit: Number(exit), example, advice };
  });

const codes = Object.keys(errorCodes) as readonly ErrorCode[];

test('the document has a section for every code of the table, in its order, and for no other', () => {
  assert.deepEqual(
    sections.map(({ code }) => code),
    codes,
  );
});

test('the document says of every code what the table says', () => {
  for (const { code, means, exit, advice } of sections) {
    const row = errorCodes[code as ErrorCode];
    assert.equal(exit, row.exit, code);
    assert.equal(means.toLowerCase(), row.means.toLowerCase(), code);
    assert.ok(advice.length > 80, `${code}: what is to be done?`);
  }
});

test('the document lists the exit statuses there are', () => {
  const listed = [...doc.matchAll(/^\| (\d+) \|/gm)].map(([, status]) => Number(status));
  assert.deepEqual(listed, Object.values(exitStatus));
});

test('every code ends the program with an exit status that says something went wrong', () => {
  const failures = Object.values(exitStatus).filter((status) => status !== exitStatus.done);
  for (const code of codes) assert.ok(failures.includes(errorCodes[code].exit), code);
});

test('links inside the document lead somewhere', () => {
  for (const [, anchor] of doc.matchAll(/\]\(#(\w+)\)/g)) {
    assert.ok(
      sections.some(({ code }) => code.toLowerCase() === anchor),
      anchor,
    );
  }
});

function load(flags: Flags, file?: string): () => unknown {
  const readFile = () => {
    if (file === undefined) throw systemError('ENOENT', 'no such file');
    return new TextEncoder().encode(file);
  };
  return () => loadConfig({ flags, env: {}, readFile });
}

function systemError(errno: string, message = errno): Error {
  return Object.assign(new Error(message), { code: errno });
}

function listening(errno: string, address: string, message?: string): () => never {
  return () => {
    throw listenError(systemError(errno, message), 'tcp', address, 1024);
  };
}

const inFile = (text: string) => load({ config: 'dualport.yaml' }, text);
const ports = 'publish:\n  - ports: "8080:80"\n';

const aRule = {
  tool: 'ip',
  args: '-4 rule add pref 60 iif docker0 lookup 24000 protocol 240'.split(' '),
} as const;

/** How to get each example of the document. */
const provoked: Readonly<Record<ErrorCode, () => unknown>> = {
  USAGE: load({ publish: ['8080:80'], connectTimeout: 'fast' }),
  PORT_SPEC: load({ publish: ['8080:http'] }),
  ADDRESS: load({ publish: ['8080:80'], allow: ['10.0.0.1/8'] }),
  ENGINE: () => refuseEngine('linux', 1, { reason: 'it runs on Linux, and this is darwin' }),
  PORT_CONFLICT: load({ publish: ['8080:80', '[::]:8080:8080'], to: ['172.17.0.2'] }),
  SELF_CONNECT: load({ publish: ['8080:8080'], to: ['127.0.0.1'] }),
  CONFIG_FILE: load({ config: '/etc/dualport.yaml' }),
  CONFIG_SYNTAX: inFile('publish:\n  - ports: "8080:80\n'),
  CONFIG_VALUE: inFile(`defaults:\n  source: proxy\n${ports}`),
  CONFIG_KEY: inFile(`${ports}source: proxy-v2\n`),
  ADDRESS_IN_USE: listening('EADDRINUSE', '0.0.0.0:8080'),
  ADDRESS_NOT_AVAILABLE: listening('EADDRNOTAVAIL', '192.0.2.7:8080'),
  FAMILY_NOT_AVAILABLE: () => {
    throw noIpv6Error('tcp', '[::]:8080');
  },
  PRIVILEGE: listening('EACCES', '[::]:80'),
  LISTEN: listening('EMFILE', '0.0.0.0:8080'),
  DOCKER: () => run(['check', '--docker', '--docker-engine', '/run/dualport-example/docker.sock']),
  DAEMON_JSON: () => parseDaemonJson('/etc/docker/daemon.json', '[]'),
  STATE: () => run(['pseudo', '240.1.2.3', '--state-dir', '/run/dualport/none']),
  SETUP: () =>
    must(async () => ({ status: 2, stdout: '', stderr: 'RTNETLINK answers: File exists\n' }), aRule),
  SETUP_TOOL: () => {
    throw toolError('nft', systemError('ENOENT'));
  },
  SETUP_FOREIGN: () => {
    throw foreignError([
      'the nft table inet dualport belongs to somebody else, who has there the chain "input"',
    ]);
  },
  SETUP_BUSY: async () => {
    const names = {
      table: 'dualport',
      priority: 60,
      routeTable: 24_000,
      interfaces: [],
      mark: { value: 1, mask: 1 },
    };
    const lock = await lockPlace(names);
    await lockPlace(names).finally(() => lock.release());
  },
  ADMIN: () => run(['status', '--admin', '/run/dualport/admin.sock']),
};

for (const { code, example } of sections) {
  test(`the example of ${code} is what dualport prints`, async () => {
    await assert.rejects(async () => provoked[code as ErrorCode](), {
      name: 'DualportError',
      code,
      message: example,
    });
  });
}

test('an error has the exit status of its code, and the cause it was given', () => {
  const cause = systemError('EIO');
  const error = new DualportError('ADDRESS_IN_USE', 'taken', { cause });
  assert.equal(error.exitStatus, 69);
  assert.equal(error.cause, cause);
  assert.equal(error.message, 'taken');
  assert.ok(error instanceof Error);
  assert.ok(!('cause' in new DualportError('USAGE', 'wrong')));
});

test('the errno of an error is its name, where it has one', () => {
  assert.equal(errnoOf(systemError('EADDRINUSE')), 'EADDRINUSE');
  assert.equal(errnoOf(new Error('plain')), undefined);
  assert.equal(errnoOf(Object.assign(new Error(), { code: -98 })), undefined);
  assert.equal(errnoOf({ code: 'EADDRINUSE' }), undefined);
  assert.equal(errnoOf('EADDRINUSE'), undefined);
  assert.equal(errnoOf(undefined), undefined);
});

test('whatever was thrown has something to say', () => {
  assert.equal(messageOf(new Error('why')), 'why');
  assert.equal(messageOf('why'), 'why');
  assert.equal(messageOf(undefined), 'undefined');
});

/** The code of each errno, and what its advice must name. */
const advice: Readonly<Record<string, readonly [code: ErrorCode, names: readonly RegExp[]]>> = {
  EADDRINUSE: ['ADDRESS_IN_USE', [/another program/, /ss -lntup/, /publish another port/]],
  EACCES: [
    'PRIVILEGE',
    [/below 443 /, /CAP_NET_BIND_SERVICE/, /net\.ipv4\.ip_unprivileged_port_start/, /higher port/],
  ],
  EADDRNOTAVAIL: [
    'ADDRESS_NOT_AVAILABLE',
    [/ip address/, /net\.ipv4\.ip_nonlocal_bind/, /net\.ipv6\.ip_nonlocal_bind/],
  ],
  EAFNOSUPPORT: ['FAMILY_NOT_AVAILABLE', [/no IPv6/, /net\.ipv6\.conf\.all\.disable_ipv6=0/, /IPv4 address/]],
  EINVAL: ['ADDRESS_NOT_AVAILABLE', [/link-local/, /\[fe80::1%eth0\]/]],
  EMFILE: ['LISTEN', [/ulimit -n/, /LimitNOFILE=/]],
  ENOBUFS: ['LISTEN', [/the system said ENOBUFS$/]],
};
for (const [errno, [code, names]] of Object.entries(advice)) {
  test(`${errno} while listening is ${code}, with the listener named and what to do`, () => {
    const cause = systemError(errno, `the system said ${errno}`);
    for (const [protocol, address] of [
      ['tcp', '[::]:80'],
      ['udp', '192.0.2.1:53'],
    ] as const) {
      const error = listenError(cause, protocol, address, 443);
      assert.equal(error.code, code);
      assert.equal(error.cause, cause);
      assert.ok(error.message.startsWith(`cannot listen on ${protocol} ${address}: `), error.message);
      for (const name of names) assert.match(error.message, name);
    }
  });
}

test('an interface that is not there is named, and none is asked for where one was given', () => {
  for (const errno of ['EINVAL', 'ENODEV']) {
    const error = listenError(systemError(errno), 'tcp', '[fe80::1%nosuch]:80', 443);
    assert.equal(error.code, 'ADDRESS_NOT_AVAILABLE');
    assert.match(error.message, /no interface "nosuch" with a link-local address \(see: ip -6 address\)/);
    assert.doesNotMatch(error.message, /needs its interface/);
  }
  const inUse = listenError(systemError('EADDRINUSE'), 'tcp', '[fe80::1%eth0]:80', 443);
  assert.equal(inUse.code, 'ADDRESS_IN_USE');
});

test('what is no system error is LISTEN with its own words', () => {
  assert.equal(listenError('odd', 'tcp', '[::]:80', 1024).message, 'cannot listen on tcp [::]:80: odd');
  assert.equal(listenError(new Error('odd'), 'tcp', '[::]:80', 1024).code, 'LISTEN');
});

test('a host without IPv6 says so for the address that needs it', () => {
  const error = noIpv6Error('udp', '[fd00::1]:53');
  assert.equal(error.code, 'FAMILY_NOT_AVAILABLE');
  assert.match(error.message, /^cannot listen on udp \[fd00::1\]:53: this host has no IPv6/);
});
