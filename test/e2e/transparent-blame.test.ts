/**
 * Whatever can be to blame that answers to a client do not come back, brought about one by one in network namespaces:
 * `dualport transparent check` names it, and leaves nothing behind.
 */
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { Stage } from '../support/dualport.ts';
import {
  addresses,
  filterInput,
  type Namespace,
  namespacesOf,
  nft,
  type World,
} from '../support/namespace.ts';
import { skipWithoutCore } from '../support/requirements.ts';
import {
  buildTools,
  dump,
  inside,
  ipEach,
  quick,
  sysctl,
  type Tools,
  transparently,
} from '../support/transparent.ts';
import { check, containerWorld, ipv4, toIpv4 } from '../support/transparent-check.ts';

const options = { skip: skipWithoutCore('root', 'netns', 'nft', 'gcc'), timeout: 60_000 };
const { client } = addresses;

let tools: Tools;
if (options.skip === false) {
  tools = buildTools(new Stage({ after }));
  after(() => assert.deepEqual(namespacesOf(process.pid), [], 'no namespace was left behind'));
}

// Most of them wait for answers that do not come.
describe('dualport transparent check finds to blame', { concurrency: 4, skip: options.skip }, () => {
  /** What an operator's host may have, with a set-up in place, and what is to blame then. */
  const causes: Readonly<
    Record<string, readonly [spoil: (world: World) => void, results: object, says?: RegExp]>
  > = {
    'a rule that was removed': [
      ({ host }) => ipEach(host, ['rule del pref 60']),
      ipv4('missing-rule'),
      /not in force: ip -4 rule add pref 60 iif container0/,
    ],
    'a rule that was removed, where packets are forwarded': [
      ({ host }) => {
        ipEach(host, ['rule del pref 60', `route add default via ${client.v4}`]);
        sysctl(host, { 'ipv4/ip_forward': 1 });
      },
      ipv4('missing-rule'),
    ],
    'a table that was removed': [
      ({ host }) => nft(host, 'flush ruleset\n'),
      ipv4('missing-rule'),
      /the nft table/,
    ],
    'a rule of somebody else before ours': [
      ({ host }) =>
        ipEach(host, ['rule add pref 10 lookup 220', `route add 203.0.113.0/24 via ${client.v4} table 220`]),
      ipv4('overruled'),
      /what is marked is not led to this host, though all .* is in force.*--transparent-priority/s,
    ],
    'a chain of somebody else that takes the mark away': [
      ({ host }) => nft(host, filterTable('prerouting', 'meta mark set 0', 'mangle + 10')),
      ipv4('overruled'),
      /answers are not marked, though all .* is in force/,
    ],
    'src_valid_mark=1 and a rule that names no interface': [
      ({ host }) => {
        withoutInterface(host);
        sysctl(host, { 'ipv4/conf/all/src_valid_mark': 1, 'ipv4/conf/container0/rp_filter': 1 });
      },
      ipv4('src_valid_mark'),
      /names? their interface/,
    ],
    'rp_filter=1 where answers come by another way': [
      (world) => {
        anotherCable(world);
        sysctl(world.host, { 'ipv4/conf/other0/rp_filter': 1 });
      },
      ipv4('rp_filter', 'no-answer'),
      /come back over other0, where rp_filter=1 drops them.*--transparent-interface other0/s,
    ],
    'answers that come by another way': [
      (world) => {
        anotherCable(world);
        sysctl(world.host, { 'ipv4/conf/all/rp_filter': 0, 'ipv4/conf/other0/rp_filter': 0 });
      },
      // The program is on a wildcard address, and UDP takes the address of the way out.
      ipv4('interface', 'no-answer'),
      /answers the client from another address/,
    ],
    'a masquerade': [
      ({ host }) => nft(host, natTable('oifname "container0" masquerade')),
      ipv4('masquerade'),
    ],
    'an address of NAT': [
      ({ host }) => nft(host, natTable('ip saddr 203.0.113.0/24 snat ip to 198.18.2.1')),
      ipv4('masquerade'),
    ],
    'an upstream without a way back': [
      ({ container }) => ipEach(container, ['route del default']),
      ipv4('no-answer'),
    ],
    'an upstream that drops strangers': [
      ({ container }) => filterInput(container, ['policy drop;', `ip saddr ${addresses.gateway.v4} accept`]),
      ipv4('no-answer'),
    ],
    'an upstream that refuses strangers': [
      ({ container }) => filterInput(container, ['ip saddr 203.0.113.0/24 reject']),
      ipv4('upstream'),
    ],
    'an input filter that drops answers': [
      ({ host }) => filterInput(host, ['ip daddr 203.0.113.0/24 drop']),
      ipv4('input'),
    ],
    'an input filter that drops answers to everybody': [
      ({ host }) => filterInput(host, ['policy drop;']),
      ipv4('input'),
    ],
    'an output filter': [
      ({ host }) => nft(host, filterTable('output', 'ip saddr 203.0.113.0/24 drop')),
      ipv4('output'),
    ],
    'a reverse path filter and a rule that names no interface': [
      ({ host }) => {
        withoutInterface(host);
        nft(host, filterTable('prerouting', 'fib saddr . mark . iif oif missing drop', 'mangle + 10'));
      },
      ipv4('firewall'),
    ],
    'an upstream that is gone': [
      ({ container }) => ipEach(container, ['address flush dev eth0']),
      // Over UDP that looks like a program that answers nothing.
      ipv4('upstream', 'untold'),
    ],
  };

  for (const [what, [spoil, results, says]] of Object.entries(causes)) {
    test(`${what} is found to be to blame`, options, async (t) => {
      const stage = new Stage(t);
      const world = await containerWorld(stage, tools);
      await transparently(stage, world.host, 'up', toIpv4);
      spoil(world);
      const before = dump(world.host);
      const found = await check(stage, world.host, toIpv4);
      assert.deepEqual(found.results, results);
      if (says !== undefined) assert.match(found.text, says);
      assert.equal(dump(world.host), before);
    });
  }
});

function withoutInterface(place: Namespace): void {
  ipEach(place, ['rule del pref 60', 'rule add pref 60 fwmark 0x1000/0x1000 lookup 24000 protocol 240']);
}

function natTable(rule: string): string {
  return `table inet nat {\nchain out {\ntype nat hook postrouting priority srcnat; policy accept;\n${rule}\n}\n}\n`;
}

function filterTable(hook: string, rule: string, priority = '0'): string {
  return `table inet theirs {\nchain one {\ntype filter hook ${hook} priority ${priority}; policy accept;\n${rule}\n}\n}\n`;
}

/** A second cable between container and host, by which the container sends what is not for its own network. */
function anotherCable(world: World): void {
  ipEach(world.host, [
    `link add other0 type veth peer name eth1 netns ${world.container.name}`,
    'link set other0 addrgenmode none',
    'link set other0 up',
    'address add 198.18.3.1/24 dev other0',
  ]);
  ipEach(world.container, [
    'link set eth1 up',
    'address add 198.18.3.2/24 dev eth1',
    'route replace default via 198.18.3.1',
    // rp_filter is asked for ARP, too.
    `neigh replace 198.18.3.1 lladdr ${macOf(world.host, 'other0')} dev eth1 nud permanent`,
  ]);
}

function macOf(place: Namespace, device: string): string {
  const [{ address }] = JSON.parse(inside(quick(place), ['ip', '-j', 'link', 'show', device]));
  return address;
}
