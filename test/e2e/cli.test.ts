/** What the command line prints and how it ends, above all when something is wrong. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { freePort, main, Running, runToEnd } from '../support/process.ts';

const directory = mkdtempSync(join(tmpdir(), 'dualport-cli-'));
after(() => rmSync(directory, { recursive: true }));

function file(text: string): string {
  const path = join(directory, `${Math.random()}.yaml`);
  writeFileSync(path, text);
  return path;
}

interface Bad {
  readonly what: string;
  readonly args: readonly string[];
  readonly env?: NodeJS.ProcessEnv;
  readonly code: number;
  readonly says: RegExp;
}

const bad: readonly Bad[] = [
  { what: 'no port', args: [], code: 2, says: /no port to publish.*-p '\[::\]:8080:80'/ },
  {
    what: 'an unknown flag',
    args: ['--pubish', '80'],
    code: 2,
    says: /unknown option '--pubish'[\s\S]*--publish/,
  },
  {
    what: 'an unknown command',
    args: ['chekc'],
    code: 2,
    says: /"chekc" is not a command.*did you mean check/,
  },
  {
    what: 'a flag that would ring a bell',
    args: ['--pub\u0007\nish', '80'],
    code: 2,
    says: /unknown option '--pub ish' \(Did you mean --publish\?\); dualport --help has/,
  },
  {
    what: 'an unknown part of a command',
    args: ['transparent', 'pritn'],
    code: 2,
    says: /unknown command 'pritn' \(Did you mean print\?\); dualport --help/,
  },
  { what: 'an argument too many', args: ['check', 'x'], code: 2, says: /too many arguments/ },
  { what: 'a flag without its value', args: ['-p'], code: 2, says: /argument missing/ },
  { what: 'a port that is none', args: ['-p', '65536:80'], code: 2, says: /--publish.*65536.*0 to 65535/ },
  {
    what: 'a host name to listen on',
    args: ['-p', 'localhost:80:80'],
    code: 2,
    says: /localhost.*not an IP address/,
  },
  { what: 'an upstream that is none', args: ['-p', '8080', '-t', 'a b\u0007'], code: 2, says: /--to/ },
  {
    what: 'a wrong prefix',
    args: ['-p', '8080:80', '--allow', '10.0.0.1/8'],
    code: 2,
    says: /--allow.*10\.0\.0\.0\/8/,
  },
  {
    what: 'a wrong source',
    args: ['-p', '8080:80', '--source', 'proxy'],
    code: 2,
    says: /--source.*none, proxy-v1, proxy-v2/,
  },
  {
    what: 'a wrong duration',
    args: ['-p', '8080:80', '--connect-timeout', '5x'],
    code: 2,
    says: /--connect-timeout.*5x.*duration/,
  },
  {
    what: 'version 1 for UDP',
    args: ['-p', '53:53/udp', '-t', '10.0.0.1', '--source', 'proxy-v1'],
    code: 2,
    says: /no UDP.*proxy-v2/,
  },
  {
    what: 'two rules for one port',
    args: ['-p', '8080:80', '-p', '127.0.0.1:8080:81', '-t', '10.0.0.1'],
    code: 78,
    says: /8080:80\/tcp[\s\S]*127\.0\.0\.1:8080:81\/tcp|127\.0\.0\.1:8080:81\/tcp[\s\S]*8080:80\/tcp/,
  },
  {
    what: 'a connection to itself',
    args: ['-p', '8080:8080', '-t', '127.0.0.1'],
    code: 78,
    says: /itself|own listener/,
  },
  {
    what: 'a wrong variable',
    args: ['-p', '8080:80'],
    env: { DUALPORT_SOURCE: 'x' },
    code: 2,
    says: /DUALPORT_SOURCE/,
  },
  {
    what: 'an unknown variable',
    args: ['-p', '8080:80'],
    env: { DUALPORT_SUORCE: 'x' },
    code: 2,
    says: /DUALPORT_SUORCE.*DUALPORT_SOURCE/,
  },
  {
    what: 'a missing file',
    args: ['-c', '/nonexistent/dualport.yaml'],
    code: 78,
    says: /\/nonexistent\/dualport\.yaml/,
  },
  { what: 'a directory as file', args: ['-c', directory], code: 78, says: /directory/ },
  { what: 'broken YAML', args: ['-c', file('publish: [a\nb: }')], code: 78, says: /\.yaml:\d+:\d+/ },
  {
    what: 'an unknown key',
    args: ['-c', file('publish:\n  - port: ["80:80"]\n')],
    code: 78,
    says: /:2:5: .*unknown key; did you mean ports/,
  },
  {
    what: 'a wrong value in the file',
    args: ['-c', file('publish:\n  - ports: ["80:80"]\n    source: proxy\n')],
    code: 78,
    says: /:3:13: .*none, proxy-v1, proxy-v2/,
  },
  {
    what: 'a multicast address to listen on',
    args: ['-p', '[ff02::1]:80:80'],
    code: 2,
    says: /--publish.*multicast/,
  },
  {
    what: 'a link-local address without its interface',
    args: ['-p', '[fe80::1]:80:80'],
    code: 2,
    says: /\[fe80::1%eth0\]/,
  },
  {
    what: 'a v4-mapped prefix that is too short',
    args: ['-p', '8080:80', '--deny', '::ffff:10.0.0.0/8'],
    code: 2,
    says: /96 or more; write 10\.0\.0\.0\/8/,
  },
  {
    what: 'an admin socket in no folder',
    // By name: where `auto` has to fall back the log says so, on stdout.
    args: ['-p', '8080:80', '-t', '198.18.0.1', '--admin', '/nonexistent/a.sock', '--engine', 'portable'],
    code: 1,
    says: /folder \/nonexistent does not exist/,
  },
  { what: 'a demonstration on no port', args: ['demo', 'http'], code: 2, says: /http/ },
  { what: 'status without an address', args: ['status'], code: 2, says: /--admin.*DUALPORT_ADMIN/ },
  {
    what: 'status of nobody',
    args: ['status', '--admin', '/nonexistent/admin.sock'],
    code: 1,
    says: /no dualport answers on \/nonexistent\/admin\.sock: there is no such socket; give the --admin of one that runs/,
  },
];

for (const { what, args, env, code, says } of bad) {
  test(`${what} ends with status ${code} and a message, never a stack trace`, async () => {
    const exit = await runToEnd(args, env);
    assert.match(exit.stderr, says);
    assert.equal(exit.code, code);
    assert.equal(exit.stdout, '');
    assert.match(exit.stderr, /^dualport: [^\n]+\n$/, 'one line, whoever refuses');
    assert.doesNotMatch(exit.stderr, /^\s+at /m);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: a user's input must not reach the terminal raw
    assert.doesNotMatch(exit.stderr, /[\x00-\x09\x0b-\x1f\x7f]/);
  });
}

/** What may be where dualport was, or is in its place. */
const strangers: Readonly<Record<string, readonly [(response: ServerResponse) => void, RegExp]>> = {
  'a web server': [(response) => response.end('<html>'), /what answers is not dualport/],
  'a server of other JSON': [(response) => response.end('{"rules":[]}'), /what answers is not dualport/],
  'a server without such a page': [
    (response) => response.writeHead(404).end(),
    /it answered with status 404/,
  ],
  'an answer that breaks off': [
    (response) => response.writeHead(200, { 'content-length': 9 }).write('{', () => response.destroy()),
    /: aborted/,
  ],
};
for (const [what, [answer, says]] of Object.entries(strangers)) {
  test(`status of ${what} ends with status 1 and a message that names it, never a stack trace`, async (t) => {
    const port = await freePort();
    const server = createServer((_, response) => answer(response)).listen(port, '127.0.0.1');
    t.after(() => server.close());
    const { code, stdout, stderr } = await runToEnd(['status', '--admin', `:${port}`]);
    assert.deepEqual([code, stdout], [1, '']);
    assert.match(
      stderr,
      /^dualport: no dualport answers on 127\.0\.0\.1:\d+: .*, nor on \[::1\]:\d+: nobody listens;.*\n$/,
    );
    assert.match(stderr, says);
  });
}

test('status does not wait for an answer that never ends', async (t) => {
  const port = await freePort();
  const server = createServer((_, response) => {
    const drip = setInterval(() => response.write(' '), 100);
    response.on('close', () => clearInterval(drip));
  });
  server.listen(port, '127.0.0.1');
  t.after(() => server.close());
  const { code, stderr } = await runToEnd(['status', '--admin', `127.0.0.1:${port}`]);
  assert.equal(code, 1);
  assert.match(stderr, /no answer within 5 s/);
});

test('check prints the effective rules as a table', async () => {
  const { stdout, code } = await runToEnd([
    'check',
    '-p',
    '8080-8081:80-81',
    '-p',
    '[::]:53:53/udp',
    '-t',
    '172.17.0.2',
    '--source',
    'proxy-v2',
    '--allow',
    '10.0.0.0/8',
  ]);
  assert.equal(code, 0);
  const lines = stdout.trimEnd().split('\n');
  assert.equal(lines.length, 4);
  assert.match(
    lines[1] ?? '',
    /^tcp +0\.0\.0\.0:8080 \[::\]:8080 +172\.17\.0\.2:80 +same +proxy-v2 +allow 10\.0\.0\.0\/8$/,
  );
  assert.match(lines[3] ?? '', /^udp +\[::\]:53 /);
});

test('check --json prints every value in force and where it came from', async () => {
  const path = file('defaults: {source: proxy-v2}\npublish:\n  - ports: ["8080:80"]\n    to: [172.17.0.2]\n');
  const { stdout } = await runToEnd(['check', '--json', '-c', path, '--idle-timeout', '1m'], {
    DUALPORT_LOG_LEVEL: 'warn',
  });
  const checked = JSON.parse(stdout);
  assert.equal(checked.rules[0].source, 'proxy-v2');
  assert.equal(checked.rules[0].timeouts.idleMs, 60_000);
  assert.deepEqual(
    [checked.origins.source, checked.origins.idleTimeout, checked.origins.logLevel, checked.origins.engine],
    ['file', 'flag', 'environment', 'default'],
  );
});

test('check says which programs see every client under one address, and the remedy', async () => {
  const { stdout, stderr, code } = await runToEnd(['check', '-p', '25:25', '-t', '172.17.0.2']);
  assert.equal(code, 0);
  assert.equal(stdout.trimEnd().split('\n').length, 2, 'the table is not disturbed');
  assert.match(
    stderr,
    /^dualport: behind 25:25\/tcp .*open relay.*--source proxy-v2.*--allow.*--source none.*\n$/,
  );
  const many = await runToEnd(['check', '--json', '-p', '8000-8011:8000-8011', '-t', '172.17.0.2']);
  assert.equal(JSON.parse(many.stdout).hidesClients.length, 12);
  assert.match(many.stderr, /8009:8009\/tcp and 2 more programs/);
  const said = await runToEnd(['check', '-p', '25:25', '-t', '172.17.0.2', '--source', 'none']);
  assert.equal(said.stderr, '');
});

test('what a command prints arrives as a whole, also at a reader that is slow', async () => {
  const args = ['check', '-p', '10001-12000:10001-12000', '-t', '172.17.0.2'];
  const slowly = ['sh', '-c', '"$@" | { sleep 1; cat; }', 'sh', process.execPath, main];
  const { stdout } = await new Running(args, { command: slowly }).exit;
  const lines = stdout.split('\n');
  assert.equal(lines.length, 2002);
  assert.match(lines[2000] ?? '', /^tcp +0\.0\.0\.0:12000 .* everybody$/);
});

test('a reader that leaves early is no failure', async () => {
  const args = ['check', '-p', '10001-12000:10001-12000', '-t', '172.17.0.2', '--source', 'none'];
  const briefly = ['sh', '-c', '{ "$@"; echo "status $?" >&2; } | head -1', 'sh', process.execPath, main];
  const { stdout, stderr } = await new Running(args, { command: briefly }).exit;
  assert.match(stdout, /^PROTO .*\n$/);
  assert.equal(stderr, 'status 0\n');
});

test('help has every option, its default, examples and exit statuses', async () => {
  const { stdout, code } = await runToEnd(['--help']);
  assert.equal(code, 0);
  for (const text of [
    '--publish <port>',
    '--accept-proxy <cidr,...>',
    '(default: 5s)',
    'Examples:',
    '78 configuration',
  ]) {
    assert.ok(stdout.includes(text), text);
  }
});

test('the version is that of the package', async () => {
  const { stdout } = await runToEnd(['--version']);
  assert.match(stdout, /^\d+\.\d+\.\d+\n$/);
});
