/** Pseudo addresses and the files they are kept in: real files, and what can become of them. */
import assert from 'node:assert/strict';
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Family, formatAddress, parseAddress } from '../../../src/net/address.ts';
import { formatCidr, parseCidr } from '../../../src/net/cidr.ts';
import { Pseudonyms, type PseudoSettings } from '../../../src/pseudo/pseudonyms.ts';
import { PseudoRange } from '../../../src/pseudo/range.ts';
import { Saver } from '../../../src/pseudo/saver.ts';
import { compactTable, formatLine, readTable } from '../../../src/pseudo/state-file.ts';
import { PseudoTable } from '../../../src/pseudo/table.ts';
import { until } from '../../engine/harness.ts';

/** A directory that is not there yet, in one that goes with the test. */
function stateDir(t: TestContext): string {
  const parent = mkdtempSync(join(tmpdir(), 'dualport-test-'));
  t.after(() => rmSync(parent, { recursive: true, force: true }));
  return join(parent, 'state');
}

function settingsOf(directory: string, change: Partial<PseudoSettings> = {}): PseudoSettings {
  const [v4, v6] = [parseCidr('240.0.0.0/4'), parseCidr('fd5f:bf90:309::/96')];
  return { v4, v6, unitBits: 64, stateDir: directory, ...change };
}

interface Opened {
  readonly pseudonyms: Pseudonyms;
  readonly notices: readonly string[];
}

async function open(directory: string, change: Partial<PseudoSettings> = {}): Promise<Opened> {
  const notices: string[] = [];
  const pseudonyms = await Pseudonyms.open(settingsOf(directory, change), (text) => notices.push(text));
  return { pseudonyms, notices };
}

function given(pseudonyms: Pseudonyms, client: string, upstream: Family = 4): string {
  return formatAddress(pseudonyms.of(parseAddress(client), upstream).address);
}

const clientOf = (pseudonyms: Pseudonyms, address: string) => {
  const network = pseudonyms.clientOf(parseAddress(address));
  return network && formatCidr(network);
};

const clients = Array.from({ length: 20 }, (_, i) => `2001:db8:0:${i + 1}::7`);
const givenTo = (pseudonyms: Pseudonyms) => clients.map((client) => given(pseudonyms, client));

/** The addresses of some clients, kept in this directory. */
async function keep(directory: string): Promise<readonly string[]> {
  const { pseudonyms, notices } = await open(directory);
  const addresses = givenTo(pseudonyms);
  await pseudonyms.close();
  assert.deepEqual(notices, []);
  return addresses;
}

const table = (directory: string) => join(directory, 'pseudo.table');
const lines = (directory: string) => readFileSync(table(directory), 'latin1').split('\n').slice(0, -1);

test('the four ways a client is shown, and back', async (t) => {
  const { pseudonyms } = await open(stateDir(t));
  const ipv6As4 = given(pseudonyms, '2001:db8:1:2::7', 4);
  assert.match(ipv6As4, /^2[45]\d\./);
  assert.equal(clientOf(pseudonyms, ipv6As4), '2001:db8:1:2::/64');
  const ipv6As6 = given(pseudonyms, '2001:db8:1:2::7', 6);
  assert.match(ipv6As6, /^fd5f:bf90:309::f/);
  assert.equal(clientOf(pseudonyms, ipv6As6), '2001:db8:1:2::/64');
  assert.equal(given(pseudonyms, '198.18.77.7', 6), 'fd5f:bf90:309::c612:4d07');
  assert.equal(clientOf(pseudonyms, 'fd5f:bf90:309::c612:4d07'), '198.18.77.7/32');
  const ipv4As4 = given(pseudonyms, '198.18.77.7', 4);
  assert.match(ipv4As4, /^2[45]\d\./);
  assert.equal(clientOf(pseudonyms, ipv4As4), '198.18.77.7/32');
  assert.equal(pseudonyms.size, 2);
  await pseudonyms.close();
});

test('an IPv4 client before an IPv6 upstream takes no place in the table', async (t) => {
  const { pseudonyms } = await open(stateDir(t));
  assert.equal(pseudonyms.of(parseAddress('198.18.77.7'), 6).lease, undefined);
  assert.equal(pseudonyms.size, 0);
  assert.ok(pseudonyms.hasOneFor(parseAddress('198.18.77.7'), 6));
  await pseudonyms.close();
});

test('nobody has what was not given', async (t) => {
  const { pseudonyms } = await open(stateDir(t));
  for (const address of ['240.9.9.9', 'fd5f:bf90:309::f009:909'])
    assert.equal(clientOf(pseudonyms, address), undefined);
  await pseudonyms.close();
});

test('an address that is held is not given to others, however many come', async (t) => {
  const { pseudonyms } = await open(stateDir(t), { v4: parseCidr('203.0.113.0/24') });
  const { address, lease } = pseudonyms.of(parseAddress('2001:db8::7'), 4);
  lease?.begin();
  for (let i = 1; i < 500; i++)
    assert.notEqual(given(pseudonyms, `2001:db8:${i}::7`), formatAddress(address));
  assert.equal(pseudonyms.capacity, 127);
  assert.equal(given(pseudonyms, '2001:db8::7'), formatAddress(address));
  await pseudonyms.close();
});

test('with all addresses held there is none for a new client, but one that needs none', async (t) => {
  const { pseudonyms } = await open(stateDir(t), { v4: parseCidr('203.0.113.0/24') });
  for (let i = 0; i < 127; i++) pseudonyms.of(parseAddress(`2001:db8:${i}::7`), 4).lease?.begin();
  const has = (client: string, upstream: Family) => pseudonyms.hasOneFor(parseAddress(client), upstream);
  assert.deepEqual(
    [has('198.18.77.7', 4), has('2001:db8:ffff::7', 4), has('2001:db8:ffff::7', 6)],
    [false, false, false],
  );
  assert.deepEqual([has('198.18.77.7', 6), has('2001:db8:5::7', 4)], [true, true]);
  await pseudonyms.close();
});

test('addresses are the same after a restart, and their table is a line for each', async (t) => {
  const directory = stateDir(t);
  const before = await keep(directory);
  assert.equal(lines(directory).length, clients.length);
  assert.ok(lines(directory).every((line) => line.length === 63));
  const { pseudonyms, notices } = await open(directory);
  assert.equal(pseudonyms.size, clients.length);
  assert.deepEqual(
    before.map((address) => clientOf(pseudonyms, address)?.replace('::/64', '::7')),
    clients,
  );
  assert.deepEqual(givenTo(pseudonyms), before);
  await pseudonyms.close();
  assert.deepEqual(notices, []);
  assert.equal(lines(directory).length, clients.length);
});

test('what competition has settled stays settled', async (t) => {
  const directory = stateDir(t);
  const small = { v4: parseCidr('203.0.113.0/24') };
  const many = Array.from({ length: 120 }, (_, i) => `2001:db8:0:${i}::7`);
  const { pseudonyms } = await open(directory, small);
  const before = many.map((client) => given(pseudonyms, client));
  await pseudonyms.close();
  const again = (await open(directory, small)).pseudonyms;
  // In another order the first come would have had other addresses.
  assert.deepEqual(
    [...many].reverse().map((client) => given(again, client)),
    [...before].reverse(),
  );
  await again.close();
});

test('the files are for their owner', async (t) => {
  const directory = stateDir(t);
  await keep(directory);
  assert.equal(statSync(directory).mode & 0o777, 0o700);
  for (const name of ['pseudo.key', 'pseudo.table'])
    assert.equal(statSync(join(directory, name)).mode & 0o777, 0o600);
  assert.deepEqual(readdirSync(directory).sort(), ['pseudo.key', 'pseudo.table']);
});

test('new addresses are on disk a moment later, without a stop', async (t) => {
  const directory = stateDir(t);
  const { pseudonyms } = await open(directory);
  const address = given(pseudonyms, '2001:db8::7');
  await until(() => existsSync(table(directory)) && lines(directory).length === 1, 'the table on disk');
  const seen = Pseudonyms.inspect(settingsOf(directory));
  assert.equal(seen && clientOf(seen, address), '2001:db8::/64');
  await pseudonyms.close();
});

test('without the table clients have the same addresses still, by the key', async (t) => {
  const directory = stateDir(t);
  const before = await keep(directory);
  rmSync(table(directory));
  const { pseudonyms } = await open(directory);
  assert.deepEqual(givenTo(pseudonyms), before);
  await pseudonyms.close();
});

const kept = (directory: string) => readdirSync(directory).filter((name) => name.includes('.damaged-'));

/** What can happen to a table on disk; how many of the lines are lost by it. */
const damages: Readonly<Record<string, readonly [harm: (path: string) => void, lost: number]>> = {
  'a flipped bit in an address': [
    (path) => {
      const bytes = readFileSync(path);
      bytes[3] = '0123456789abcdef'.charCodeAt(
        ('0123456789abcdef'.indexOf(String.fromCharCode(bytes[3] ?? 0)) + 1) % 16,
      );
      writeFileSync(path, bytes);
    },
    1,
  ],
  'a block of zeros': [
    (path) => {
      const bytes = readFileSync(path);
      bytes.fill(0, 100, 200);
      writeFileSync(path, bytes);
    },
    3,
  ],
  'a line of text': [(path) => writeFileSync(path, `hello\n${readFileSync(path, 'latin1')}`), 0],
  'nothing but garbage': [(path) => writeFileSync(path, `${'\u00ff\0garbage\n'.repeat(50)}`), 20],
};
for (const [what, [harm, lost]] of Object.entries(damages)) {
  test(`${what}: a warning, the file is kept aside, the other lines hold`, async (t) => {
    const directory = stateDir(t);
    const before = await keep(directory);
    harm(table(directory));
    const harmed = readFileSync(table(directory));
    const { pseudonyms, notices } = await open(directory);
    assert.match(
      notices.join('\n'),
      /^\d+ lines of the pseudo addresses were damaged and are left out; the file is kept as .*pseudo\.table\.damaged-\w+, the other \d+ lines hold$/,
    );
    assert.equal(pseudonyms.size, clients.length - lost);
    const [aside] = kept(directory);
    assert.deepEqual(readFileSync(join(directory, aside ?? '')), harmed);
    assert.equal(lines(directory).length, clients.length - lost);
    assert.deepEqual(givenTo(pseudonyms), before);
    await pseudonyms.close();
    assert.deepEqual(await keep(directory), before);
    assert.equal(kept(directory).length, 1);
  });
}

test('a line that a crash has cut off is left out without a word, and spoils no other', async (t) => {
  const directory = stateDir(t);
  const before = await keep(directory);
  truncateSync(table(directory), 64 * clients.length - 30);
  const { pseudonyms, notices } = await open(directory);
  assert.deepEqual(notices, []);
  assert.equal(pseudonyms.size, clients.length - 1);
  assert.deepEqual(givenTo(pseudonyms), before);
  await pseudonyms.close();
  assert.deepEqual(kept(directory), []);
  assert.equal(lines(directory).length, clients.length);
  assert.equal(readTable(directory).damaged, 0);
});

test('a damaged key is kept aside, and those in the table keep their addresses', async (t) => {
  const directory = stateDir(t);
  const before = await keep(directory);
  writeFileSync(join(directory, 'pseudo.key'), 'not a key');
  const { pseudonyms, notices } = await open(directory);
  assert.match(notices.join('\n'), /^the key of the pseudo addresses in .* was damaged: it is kept aside/);
  assert.deepEqual(givenTo(pseudonyms), before);
  await pseudonyms.close();
  const [aside = ''] = kept(directory);
  assert.equal(readFileSync(join(directory, aside), 'latin1'), 'not a key');
  assert.match(readFileSync(join(directory, 'pseudo.key'), 'latin1'), /^[0-9a-f]{64}\n$/);
});

test('where nothing can be kept addresses are given all the same, with a warning', async (t) => {
  const parent = stateDir(t);
  writeFileSync(parent, 'a file where a directory should be');
  const { pseudonyms, notices } = await open(join(parent, 'state'));
  assert.match(
    notices[0] ?? '',
    /^pseudo addresses cannot be kept in .*, they change with the next start: ENOTDIR.*; give --state-dir a directory/,
  );
  assert.equal(new Set(givenTo(pseudonyms)).size, clients.length);
  await pseudonyms.close();
  assert.equal(notices.length, 1);
});

test('a table that cannot be read is left alone', async (t) => {
  const directory = stateDir(t);
  const before = await keep(directory);
  rmSync(table(directory));
  mkdirSync(table(directory));
  const { pseudonyms, notices } = await open(directory);
  assert.match(
    notices.join('\n'),
    /^the pseudo addresses in .*pseudo\.table cannot be read, new ones are not kept: EISDIR/,
  );
  assert.deepEqual(givenTo(pseudonyms), before);
  await pseudonyms.close();
  assert.ok(statSync(table(directory)).isDirectory());
  assert.equal(notices.length, 1);
});

test('a disk that refuses is told of once, and what it missed is written when it takes it again', async (t) => {
  const directory = stateDir(t);
  const { pseudonyms, notices } = await open(directory);
  mkdirSync(table(directory));
  const address = given(pseudonyms, '2001:db8::7');
  await until(() => notices.length > 0, 'a notice');
  assert.match(
    notices[0] ?? '',
    /^pseudo addresses cannot be written to .*pseudo\.table, new ones may change with the next start: EISDIR/,
  );
  given(pseudonyms, '2001:db8:0:2::7');
  await sleep(1200);
  assert.equal(notices.length, 1);
  rmSync(table(directory), { recursive: true });
  writeFileSync(table(directory), 'f0010203 20010db8 what a full disk has left of a line');
  await pseudonyms.close();
  const seen = Pseudonyms.inspect(settingsOf(directory));
  assert.equal(seen && clientOf(seen, address), '2001:db8::/64');
  assert.equal(seen?.size, 2);
});

test('a disk that refuses to the end is told of once', async (t) => {
  const directory = stateDir(t);
  const { pseudonyms, notices } = await open(directory);
  mkdirSync(table(directory));
  given(pseudonyms, '2001:db8::7');
  await until(() => notices.length > 0, 'a notice');
  await pseudonyms.close();
  assert.equal(notices.length, 1);
});

test('an empty line is no damage', async (t) => {
  const directory = stateDir(t);
  const before = await keep(directory);
  writeFileSync(table(directory), `\n${lines(directory).join('\n\n')}\n\n`);
  const { pseudonyms, notices } = await open(directory);
  assert.equal(pseudonyms.size, clients.length);
  assert.deepEqual([notices, givenTo(pseudonyms)], [[], before]);
  await pseudonyms.close();
});

test('what is appended counts for how long the file may become', async (t) => {
  const directory = stateDir(t);
  await keep(directory);
  const { entries } = readTable(directory);
  const small = new PseudoTable(Buffer.alloc(32), new PseudoRange(parseCidr('240.0.0.0/4')));
  for (let i = 0; i < 2000; i++)
    small.restore({ bits: 64, key: `key ${i} `.padEnd(16), number: 0xf0010101 + 256 * i, usedS: 1 });
  const saver = new Saver(small, directory, entries.length, (text) => assert.fail(text));
  let longest = 0;
  const again = setInterval(() => {
    small.putBack(small.entries());
    longest = Math.max(longest, statSync(table(directory)).size / 64);
  }, 20);
  try {
    await until(
      () => longest > 8096 && statSync(table(directory)).size / 64 < 4100,
      'a shorter file',
      30_000,
    );
  } finally {
    clearInterval(again);
  }
  await saver.close();
  assert.ok(longest <= 2 * 2000 + 4096 + 2048, `${longest} lines`);
  assert.equal(readTable(directory).damaged, 0);
});

test('other settings find what they have left, and are no damage to each other', async (t) => {
  const directory = stateDir(t);
  const before = await keep(directory);
  const otherUnit = await open(directory, { unitBits: 56 });
  assert.equal(otherUnit.pseudonyms.size, 0);
  await otherUnit.pseudonyms.close();
  const others = await open(directory, { v4: parseCidr('10.64.0.0/10') });
  assert.equal(others.pseudonyms.size, 0);
  assert.match(given(others.pseudonyms, '2001:db8::7'), /^10\./);
  await others.pseudonyms.close();
  const { pseudonyms, notices } = await open(directory);
  assert.equal(pseudonyms.size, clients.length);
  assert.deepEqual(givenTo(pseudonyms), before);
  await pseudonyms.close();
  assert.deepEqual([...others.notices, ...notices], []);
});

test('two processes with one directory agree, and neither takes lines from the other', async (t) => {
  const directory = stateDir(t);
  const [one, other] = [await open(directory), await open(directory)];
  const half = clients.length / 2;
  const before = clients.map((client, i) => given((i < half ? one : other).pseudonyms, client));
  assert.deepEqual(givenTo(one.pseudonyms), before);
  await one.pseudonyms.close();
  await other.pseudonyms.close();
  const { pseudonyms } = await open(directory);
  assert.equal(pseudonyms.size, clients.length);
  assert.deepEqual(givenTo(pseudonyms), before);
  await pseudonyms.close();
  assert.deepEqual([...one.notices, ...other.notices], []);
});

test('a table written anew has the last line of each client, in their order, and the last ones where they are too many', async (t) => {
  const directory = stateDir(t);
  await keep(directory);
  const path = table(directory);
  const [first = '', ...rest] = lines(directory);
  appendFileSync(path, `\n${first}\nnonsense\n${rest[0]}\n`);
  const expected = [...rest.slice(1), first, rest[0]];
  assert.equal(await compactTable(path, path, 1000), clients.length);
  assert.deepEqual(lines(directory), expected);
  assert.equal(await compactTable(path, path, 3), 3);
  assert.deepEqual(lines(directory), expected.slice(-3));
  assert.deepEqual(readdirSync(directory).sort(), ['pseudo.key', 'pseudo.table']);
});

test('a file that has grown to twice its worth is written anew, while addresses are given', async (t) => {
  const directory = stateDir(t);
  const before = await keep(directory);
  const text = readFileSync(table(directory), 'latin1');
  writeFileSync(table(directory), text.repeat(300));
  const { pseudonyms, notices } = await open(directory);
  assert.equal(pseudonyms.size, clients.length);
  given(pseudonyms, '2001:db8:ffff::7');
  await until(() => lines(directory).length === clients.length + 1, 'a shorter file');
  assert.deepEqual(givenTo(pseudonyms), before);
  await pseudonyms.close();
  assert.deepEqual(notices, []);
});

test('what is on disk can be looked at without a change to it', async (t) => {
  const directory = stateDir(t);
  assert.equal(Pseudonyms.inspect(settingsOf(directory)), undefined);
  const [address = ''] = await keep(directory);
  appendFileSync(table(directory), 'torn');
  const before = readFileSync(table(directory));
  const seen = Pseudonyms.inspect(settingsOf(directory));
  assert.ok(seen);
  const known = seen.lookUp(parseAddress('2001:db8:0:1:1:2:3:4'));
  assert.equal(formatCidr(known.network), '2001:db8:0:1::/64');
  assert.equal(known.addresses.map(formatAddress)[0], address);
  assert.ok(Math.abs((known.usedS ?? 0) * 1000 - Date.now()) < 60_000);
  const unknown = seen.lookUp(parseAddress('203.0.113.9'));
  assert.equal(unknown.usedS, undefined);
  assert.equal(unknown.addresses.map(formatAddress)[1], 'fd5f:bf90:309::cb00:7109');
  assert.deepEqual(readFileSync(table(directory)), before);
  await seen.close();
  const { pseudonyms } = await open(directory);
  assert.equal(given(pseudonyms, '203.0.113.9'), unknown.addresses.map(formatAddress)[0]);
  await pseudonyms.close();
});

test('200,000 clients are read at the next start, from 64 bytes each', async (t) => {
  const directory = stateDir(t);
  await keep(directory);
  const line = (i: number) =>
    formatLine({
      number: 0xf0000001 + Math.floor(i / 200) * 256 + (i % 200),
      key: Buffer.from(`20010db8${(i + 1).toString(16).padStart(8, '0')}${'0'.repeat(16)}`, 'hex').toString(
        'latin1',
      ),
      bits: 64,
      usedS: 1,
    });
  writeFileSync(table(directory), Array.from({ length: 200_000 }, (_, i) => line(i)).join(''));
  const startedMs = performance.now();
  const { pseudonyms, notices } = await open(directory);
  const tookMs = performance.now() - startedMs;
  assert.deepEqual(notices, []);
  assert.equal(pseudonyms.size, 200_000);
  assert.equal(statSync(table(directory)).size, 200_000 * 64);
  console.log(`200,000 clients: ${Math.round(tookMs)} ms to read, ${statSync(table(directory)).size} bytes`);
  await pseudonyms.close();
});
