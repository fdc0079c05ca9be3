import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { fromBytes, parseAddress } from '../../../src/net/address.ts';
import { compileCidrs, parseCidr } from '../../../src/net/cidr.ts';
import { compileAccess } from '../../../src/policy/access.ts';
import { lookAlikes, spelledIpv4 } from '../net/spellings.ts';

interface Lists {
  readonly allow?: readonly string[];
  readonly deny?: readonly string[];
}

/** What becomes of a client, by its address. */
function access({ allow = [], deny = [] }: Lists): (client: string) => string {
  const ask = compileAccess(allow.map(parseCidr), deny.map(parseCidr));
  return (client) => ask(parseAddress(client)) ?? 'served';
}

test('without lists everybody is served', () => {
  const ask = access({});
  for (const client of ['10.0.0.1', '::1', '0.0.0.0', 'ff02::1']) assert.equal(ask(client), 'served');
});

test('with an allow list only those in it are served', () => {
  const ask = access({ allow: ['10.0.0.0/8', '2001:db8::/32'] });
  assert.equal(ask('10.255.255.255'), 'served');
  assert.equal(ask('2001:db8::1'), 'served');
  assert.equal(ask('11.0.0.0'), 'not-allowed');
  assert.equal(ask('2001:db9::'), 'not-allowed');
});

test('an allow list of one family shuts the other out', () => {
  assert.equal(access({ allow: ['0.0.0.0/0'] })('2001:db8::1'), 'not-allowed');
  assert.equal(access({ allow: ['::/0'] })('192.0.2.1'), 'not-allowed');
});

test('with a deny list everybody else is served', () => {
  const ask = access({ deny: ['10.0.0.0/8'] });
  assert.equal(ask('10.0.0.1'), 'denied');
  assert.equal(ask('11.0.0.1'), 'served');
  assert.equal(ask('2001:db8::1'), 'served');
});

test('a deny list of one family leaves the other alone', () => {
  assert.equal(access({ deny: ['0.0.0.0/0'] })('2001:db8::1'), 'served');
  assert.equal(access({ deny: ['::/0'] })('192.0.2.1'), 'served');
});

test('deny wins, however narrow the allowed prefix is', () => {
  const ask = access({ allow: ['10.0.0.1', '10.0.0.2', '::/0'], deny: ['10.0.0.0/31', 'fd00::/8'] });
  assert.equal(ask('10.0.0.1'), 'denied');
  assert.equal(ask('10.0.0.2'), 'served');
  assert.equal(ask('10.0.0.0'), 'denied');
  assert.equal(ask('10.0.0.3'), 'not-allowed');
  assert.equal(ask('fd12::1'), 'denied');
  assert.equal(ask('fe80::1'), 'served');
});

test('no spelling of a denied address gets in, and no spelling of an allowed one is left out', () => {
  for (const rule of spelledIpv4) {
    const deny = access({ deny: [rule] });
    const allow = access({ allow: [rule] });
    for (const client of spelledIpv4) {
      assert.equal(deny(client), 'denied', `${client} against ${rule}`);
      assert.equal(allow(client), 'served', `${client} against ${rule}`);
    }
  }
});

test('an address that only looks like an allowed one is not let in by it', () => {
  const ask = access({ allow: ['192.0.2.1', '0.0.0.0/0', '::ffff:0:0/96'] });
  for (const client of Object.keys(lookAlikes)) assert.equal(ask(client), 'not-allowed', client);
});

test('a mapped prefix denies IPv4 clients, not IPv6 clients', () => {
  const ask = access({ deny: ['::ffff:0:0/96'] });
  for (const client of spelledIpv4) assert.equal(ask(client), 'denied', client);
  for (const client of Object.keys(lookAlikes)) assert.equal(ask(client), 'served', client);
});

const prefix = fc.constantFrom(
  ...[
    '0.0.0.0/0',
    '10.0.0.0/8',
    '10.0.0.0/9',
    '10.0.0.0/31',
    '10.0.0.1',
    '::/0',
    '::/96',
    '2001:db8::/32',
    '::1',
  ].map(parseCidr),
);
const client = fc.oneof(
  fc.constantFrom('10.0.0.1', '10.200.0.1', '::1', '::a00:1', '2001:db8::1').map(parseAddress),
  fc.uint8Array({ minLength: 4, maxLength: 4 }).map(fromBytes),
  fc.uint8Array({ minLength: 16, maxLength: 16 }),
);
const lists = fc.array(prefix, { maxLength: 3 });

test('denied is who is in the deny list, not allowed who else is missing from an allow list', () => {
  fc.assert(
    fc.property(lists, lists, client, (allow, deny, address) => {
      const allowed = allow.length === 0 || compileCidrs(allow)(address);
      const expected = compileCidrs(deny)(address) ? 'denied' : allowed ? undefined : 'not-allowed';
      const ask = compileAccess(allow, deny);
      assert.equal(ask(address), expected);
      assert.equal(ask(address), expected);
    }),
    { numRuns: 2000 },
  );
});
