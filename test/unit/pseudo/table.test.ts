import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { formatAddress, parseAddress } from '../../../src/net/address.ts';
import { formatCidr, parseCidr } from '../../../src/net/cidr.ts';
import { addressOf, PseudoRange } from '../../../src/pseudo/range.ts';
import { clientNetwork, PseudoTable } from '../../../src/pseudo/table.ts';

const secret = Buffer.alloc(32, 7);
const day = 24 * 3600;

interface TableOptions {
  readonly prefix?: string;
  readonly most?: number;
  readonly secret?: Buffer;
}

/** A table with a clock that stands until a test moves it. */
function makeTable(options: TableOptions = {}): { table: PseudoTable; clock: { nowS: number } } {
  const clock = { nowS: 1_700_000_000 };
  const range = new PseudoRange(parseCidr(options.prefix ?? '240.0.0.0/4'));
  return { table: new PseudoTable(options.secret ?? secret, range, () => clock.nowS, options.most), clock };
}

const network = (client: string, unitBits = 64) => clientNetwork(parseAddress(client), unitBits);
const restored = (table: PseudoTable, i: number, number: number, usedS: number) => {
  const { address, bits } = nth(i);
  return table.restore({ key: Buffer.from(address).toString('latin1'), bits, number, usedS });
};
const nth = (i: number) => network(`2001:db8:${(i >> 16).toString(16)}:${(i & 0xffff).toString(16)}::1`);
const given = (table: PseudoTable, i: number) => formatAddress(addressOf(table.of(nth(i)).number));

const units: readonly (readonly [client: string, unitBits: number, network: string])[] = [
  ['2001:db8:1:2:3:4:5:6', 64, '2001:db8:1:2::/64'],
  ['2001:db8:1:2ff:3:4:5:6', 56, '2001:db8:1:200::/56'],
  ['2001:db8:1:2:3:4:5:6', 128, '2001:db8:1:2:3:4:5:6/128'],
  ['203.0.113.9', 64, '203.0.113.9/32'],
  ['203.0.113.9', 56, '203.0.113.9/32'],
  ['fe80::1234', 64, 'fe80::1234/128'],
  ['febf::1', 56, 'febf::1/128'],
  ['fec0::1:2:3:4', 64, 'fec0::/64'],
  ['::1', 64, '::1/128'],
  ['64:ff9b::cb00:7109', 64, '64:ff9b::cb00:7109/128'],
];
for (const [client, unitBits, expected] of units) {
  test(`${client} is one client with ${expected}, by units of /${unitBits}`, () => {
    assert.equal(formatCidr(network(client, unitBits)), expected);
  });
}

test('a client has one address, and no other client has it', () => {
  const { table } = makeTable();
  const numbers = Array.from({ length: 5000 }, (_, i) => table.of(nth(i)).number);
  assert.equal(new Set(numbers).size, 5000);
  assert.deepEqual(
    Array.from({ length: 5000 }, (_, i) => table.of(nth(i)).number),
    numbers,
  );
  assert.equal(table.size, 5000);
});

test('hosts of one network share its address', () => {
  const { table } = makeTable();
  assert.equal(table.of(network('2001:db8:1:2::7')), table.of(network('2001:db8:1:2:ffff:ffff:ffff:ffff')));
  assert.notEqual(table.of(network('2001:db8:1:2::7')), table.of(network('2001:db8:1:3::7')));
});

test('an address leads back to its client', () => {
  const { table } = makeTable();
  const entry = table.of(network('2001:db8:1:2::7'));
  assert.equal(formatCidr(table.at(entry.number)?.network ?? assert.fail()), '2001:db8:1:2::/64');
  assert.equal(table.at(entry.number ^ 2), undefined);
});

test('another table with the same secret gives the same addresses, with another secret others', () => {
  const texts = (options: TableOptions) => {
    const { table } = makeTable(options);
    return Array.from({ length: 200 }, (_, i) => given(table, i));
  };
  assert.deepEqual(texts({}), texts({}));
  const others = texts({ secret: Buffer.alloc(32, 8) });
  assert.ok(texts({}).every((text, i) => text !== others[i]));
});

test('networks of different length do not share an address by their first bytes', () => {
  const { table } = makeTable();
  const numbers = [56, 64, 128].map((bits) => makeTable().table.of(network('2001:db8::', bits)).number);
  assert.equal(new Set(numbers).size, 3);
  assert.equal(table.size, 0);
});

test('clients that compete for an address get different ones, and keep them in every order of coming', () => {
  // 254 usable addresses of which half are given: hardly a client gets its first one.
  const { table } = makeTable({ prefix: '203.0.113.0/24' });
  assert.equal(table.capacity, 127);
  const numbers = Array.from({ length: 127 }, (_, i) => table.of(nth(i)).number);
  assert.equal(new Set(numbers).size, 127);
  for (let i = 126; i >= 0; i--) assert.equal(table.of(nth(i)).number, numbers[i]);
});

test('what a client would get is told without giving it', () => {
  const { table } = makeTable({ prefix: '203.0.113.0/24' });
  for (let i = 0; i < 100; i++) {
    const foreseen = table.foresee(nth(i));
    assert.equal(table.known(nth(i)), undefined);
    assert.equal(table.of(nth(i)).number, foreseen);
  }
});

test('a full table gives the place of the client that has gone longest without a flow', () => {
  const { table } = makeTable({ most: 3 });
  for (const i of [0, 1, 2]) table.of(nth(i));
  const first = table.of(nth(0));
  first.begin();
  first.end();
  assert.equal(table.size, 3);
  table.of(nth(3));
  assert.equal(table.size, 3);
  assert.equal(table.known(nth(1)), undefined);
  assert.equal(table.known(nth(0)), first);
});

test('a client with a flow is never given up, and its address is nobody else’s', () => {
  const { table } = makeTable({ prefix: '203.0.113.0/24', most: 10 });
  const held = table.of(nth(0));
  held.begin();
  held.begin();
  held.end();
  for (let i = 1; i < 2000; i++) assert.notEqual(table.of(nth(i)).number, held.number);
  assert.equal(table.known(nth(0)), held);
  assert.equal(table.size, 10);
  held.end();
  for (let i = 2000; i < 2010; i++) table.of(nth(i));
  assert.equal(table.known(nth(0)), undefined);
});

test('with a flow for every place there is room for those that are known only', () => {
  const { table } = makeTable({ most: 2 });
  const [first, second] = [table.of(nth(0)), table.of(nth(1))];
  first.begin();
  assert.ok(table.hasRoomFor(nth(2)));
  second.begin();
  assert.ok(!table.hasRoomFor(nth(2)));
  assert.ok(table.hasRoomFor(nth(1)));
  second.end();
  assert.ok(table.hasRoomFor(nth(2)));
});

test('whoever is let in beyond that gets the last free addresses, and after them nobody', () => {
  const { table } = makeTable({ prefix: '203.0.113.0/24' });
  const numbers = Array.from({ length: 254 }, (_, i) => {
    const entry = table.of(nth(i));
    entry.begin();
    return entry.number;
  });
  assert.equal(new Set(numbers).size, 254);
  assert.throws(() => table.of(nth(254)), /no pseudo address is free/);
});

test('a client that comes back after its place was given has its address again, unless that was taken', () => {
  const { table } = makeTable({ most: 1 });
  const before = given(table, 0);
  given(table, 1);
  assert.equal(given(table, 0), before);
});

test('new clients are to be saved, known ones again after a day', () => {
  const { table, clock } = makeTable();
  const entry = table.of(nth(0));
  assert.deepEqual(table.takeUnsaved(10), [entry]);
  assert.ok(!table.hasUnsaved);
  entry.begin();
  entry.end();
  assert.ok(!table.hasUnsaved);
  clock.nowS += day;
  entry.begin();
  assert.deepEqual(table.takeUnsaved(10), [entry]);
  assert.equal(entry.usedS, clock.nowS);
  entry.end();
  assert.ok(!table.hasUnsaved);
});

test('no more is taken to be saved than was asked for, and what was not saved can be put back', () => {
  const { table } = makeTable({ most: 5 });
  for (let i = 0; i < 5; i++) table.of(nth(i));
  const taken = table.takeUnsaved(3);
  assert.equal(taken.length, 3);
  for (let i = 5; i < 9; i++) table.of(nth(i));
  table.putBack(taken);
  // Those whose place was given meanwhile are nobody's business any more.
  assert.equal(table.takeUnsaved(100).length, 5);
});

test('what was saved holds, the last word on a client and on an address first of all', () => {
  const { table } = makeTable();
  const [a, b] = [0xf0000101, 0xf0000102];
  assert.ok(restored(table, 0, a, 1));
  assert.ok(restored(table, 0, b, 2));
  assert.equal(table.of(nth(0)).number, b);
  assert.equal(table.at(a), undefined);
  assert.ok(restored(table, 1, b, 3));
  assert.equal(table.known(nth(0)), undefined);
  assert.equal(table.at(b)?.usedS, 3);
  assert.ok(!table.hasUnsaved);
});

test('addresses of another range are not restored', () => {
  const { table } = makeTable({ prefix: '10.64.0.0/10' });
  assert.ok(!restored(table, 0, 0xf0000101, 1));
  assert.ok(!restored(table, 0, 0x0a400100, 1));
  assert.equal(table.size, 0);
});

test('of more saved clients than have room the last ones hold', () => {
  const { table } = makeTable({ most: 3 });
  for (let i = 0; i < 5; i++) restored(table, i, 0xf0000101 + i, i);
  assert.deepEqual(
    table.entries().map(({ usedS }) => usedS),
    [2, 3, 4],
  );
});

/** What may happen to a table, with a few clients so that they compete. */
const steps = fc.array(
  fc.record({ what: fc.constantFrom('of', 'begin', 'end'), client: fc.nat(30) }, { noNullPrototype: true }),
  { maxLength: 200 },
);

test('whatever happens, no two clients have one address and no client with a flow loses its own', () => {
  fc.assert(
    fc.property(steps, (happened) => {
      const { table } = makeTable({ prefix: '203.0.113.0/24', most: 8 });
      const flows = new Map<number, { number: number; count: number }>();
      for (const { what, client } of happened) {
        const known = flows.get(client);
        if (what === 'end') {
          if (known === undefined || known.count === 0) continue;
          known.count--;
          table.of(nth(client)).end();
        } else if (table.hasRoomFor(nth(client))) {
          const entry = table.of(nth(client));
          if (known !== undefined && known.count > 0) assert.equal(entry.number, known.number);
          if (what === 'begin') {
            entry.begin();
            flows.set(client, { number: entry.number, count: (known?.count ?? 0) + 1 });
          }
        }
        const entries = table.entries();
        assert.equal(new Set(entries.map(({ number }) => number)).size, entries.length);
        assert.ok(entries.length <= 8);
        for (const entry of entries) assert.equal(table.at(entry.number), entry);
      }
    }),
  );
});

test('200,000 clients: some compete for an address, each has its own, and it is fast', () => {
  const { table } = makeTable();
  const clients = 200_000;
  const heapBefore = process.memoryUsage().heapUsed;
  const startedMs = performance.now();
  const numbers = new Set<number>();
  for (let i = 0; i < clients; i++) numbers.add(table.of(nth(i)).number);
  const newUs = ((performance.now() - startedMs) * 1000) / clients;
  const bytes = (process.memoryUsage().heapUsed - heapBefore) / clients;
  assert.equal(numbers.size, clients);
  // Of a table of its own each client would have its first choice; here about 200,000² / 2 / 2²⁸ = 75 do not.
  const first = (i: number) => makeTable().table.of(nth(i)).number;
  const competed = Array.from({ length: clients }, (_, i) => i).filter(
    (i) => table.of(nth(i)).number !== first(i),
  );
  assert.ok(
    competed.length >= 30 && competed.length <= 150,
    `${competed.length} clients have a second choice`,
  );
  const againMs = performance.now();
  for (let i = 0; i < clients; i++) table.of(nth(i));
  const knownUs = ((performance.now() - againMs) * 1000) / clients;
  console.log(
    `200,000 clients: ${newUs.toFixed(1)} µs for a new one, ${knownUs.toFixed(1)} µs for a known one (its text included), ` +
      `${Math.round(bytes)} bytes each, ${competed.length} with a second choice`,
  );
});
