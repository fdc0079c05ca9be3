/**
 * `dualport transparent check`: it says that answers find back, or what is to blame that they do not. Nothing of a
 * check stays behind. What can be to blame on the way is transparent-blame.test.ts.
 */
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { until } from '../engine/harness.ts';
import { Stage } from '../support/dualport.ts';
import { namespacesOf } from '../support/namespace.ts';
import { main } from '../support/process.ts';
import { skipWithoutCore } from '../support/requirements.ts';
import {
  buildTools,
  dump,
  inside,
  ipEach,
  listenOn,
  openRoutedWorld,
  quick,
  type Tools,
  transparent,
  transparently,
} from '../support/transparent.ts';
import {
  check,
  containerWorld,
  everywhere,
  ipv4,
  toContainer,
  toIpv4,
  toLoopback,
} from '../support/transparent-check.ts';

const options = { skip: skipWithoutCore('root', 'netns', 'nft', 'gcc'), timeout: 60_000 };

let tools: Tools;
if (options.skip === false) {
  tools = buildTools(new Stage({ after }));
  after(() => assert.deepEqual(namespacesOf(process.pid), [], 'no namespace was left behind'));
}

// Most of them wait for answers that do not come.
describe('dualport transparent check', { concurrency: 4, skip: options.skip }, () => {
  test('what is set up works, transparent and pseudo, and nothing of the check stays', options, async (t) => {
    const stage = new Stage(t);
    const { host } = await containerWorld(stage, tools);
    await transparently(stage, host, 'up', toContainer);
    const before = dump(host);
    const { code, results } = await check(stage, host, toContainer);
    assert.equal(code, 0);
    assert.equal(Object.keys(results).length, 8, 'two protocols, two families, two sources');
    assert.deepEqual([...new Set(Object.values(results))], ['works']);
    assert.equal(dump(host), before);
  });

  test('it is said in lines, too', options, async (t) => {
    const stage = new Stage(t);
    const { host } = await containerWorld(stage, tools);
    await transparently(stage, host, 'up', toIpv4);
    const lines = await transparently(stage, host, 'check', [...toIpv4, '--from', '192.0.2.4']);
    assert.match(lines, /^ok {4}198\.18\.2\.2:80\/tcp as 192\.0\.2\.4 \(transparent\): answers find back$/m);
    await transparently(stage, host, 'down');
    const { code, stdout } = await transparent(stage, host, 'check', toIpv4);
    assert.equal(code, 1);
    assert.match(
      stdout,
      /^FAIL {2}198\.18\.2\.2:80\/tcp as 203\.0\.113\.1 .*not in force: ip -4 route add.*\[missing-rule\]$/m,
    );
    assert.equal(stdout.match(/^remedy for missing-rule: run dualport transparent up$/gm)?.length, 1);
  });

  test('without a set-up rules and routes are missing', options, async (t) => {
    const stage = new Stage(t);
    const { host } = await containerWorld(stage, tools);
    const { results } = await check(stage, host, toContainer);
    for (const [upstream, result] of Object.entries(results)) {
      assert.equal(result, upstream.endsWith(' pseudo') ? 'missing-route' : 'missing-rule', upstream);
    }
  });

  test('a client beside the upstream cannot be spoofed, and is told from a fault', options, async (t) => {
    const stage = new Stage(t);
    const { host: place } = await containerWorld(stage, tools);
    await transparently(stage, place, 'up', toIpv4);
    const { results, text } = await check(stage, place, [...toIpv4, '--from', '198.18.2.9']);
    assert.deepEqual(results, ipv4('on-link'));
    assert.match(text, /container0, too: the upstream answers it directly.*connects such clients plainly/s);
  });

  test('a bridge without a link-local address is remarked on', options, async (t) => {
    const stage = new Stage(t);
    const { host: place } = await containerWorld(stage, tools);
    const remark = /container0 has no link-local IPv6 address/;
    assert.doesNotMatch((await transparent(stage, place, 'up', toContainer)).stderr, remark);
    ipEach(place, ['-6 address del fe80::21/64 dev container0']);
    assert.match((await transparent(stage, place, 'up', toContainer)).stderr, remark);
    assert.match((await check(stage, place, toContainer)).text, remark);
    assert.doesNotMatch((await transparent(stage, place, 'up', toIpv4)).stderr, remark);
  });

  test('a port where nobody listens shows by its refusal that answers find back', options, async (t) => {
    const stage = new Stage(t);
    const { host: place } = openRoutedWorld(stage);
    await transparently(stage, place, 'up', toIpv4);
    const { results, text } = await check(stage, place, toIpv4);
    assert.deepEqual(results, ipv4('works'));
    assert.match(text, /nobody listens there/);
  });

  test(
    'a UDP program that answers nothing is not held to be a fault, unless rules are missing',
    options,
    async (t) => {
      const stage = new Stage(t);
      const world = openRoutedWorld(stage);
      await listenOn(stage, tools, world.container, ['tcp 0.0.0.0 80']);
      stage.start(world.container, 'socat', ['-u', 'UDP-RECV:53', 'OPEN:/dev/null']);
      await until(() => /:53 /.test(inside(quick(world.container), ['ss', '-Hlun'])), 'a UDP program');
      await transparently(stage, world.host, 'up', toIpv4);
      const { code, results } = await check(stage, world.host, toIpv4);
      assert.deepEqual(results, ipv4('works', 'untold'));
      assert.equal(code, 0);
      ipEach(world.host, ['rule del pref 60']);
      assert.deepEqual((await check(stage, world.host, toIpv4)).results, ipv4('missing-rule'));
    },
  );

  for (const [where, listeners] of [
    ['loopback', ['tcp 127.0.0.1 80', 'tcp ::1 80', 'udp 127.0.0.1 53', 'udp ::1 53']],
    ['wildcard addresses', everywhere],
  ] as const) {
    test(`programs on ${where} of this host: what works, and what is missing`, options, async (t) => {
      const stage = new Stage(t);
      const { container: place } = openRoutedWorld(stage);
      await listenOn(stage, tools, place, listeners);
      await transparently(stage, place, 'up', toLoopback);
      const all = async () => [...new Set(Object.values((await check(stage, place, toLoopback)).results))];
      assert.deepEqual(await all(), ['works']);
      await transparently(stage, place, 'down');
      assert.deepEqual(await all(), ['missing-rule']);
    });
  }

  test(
    'without rules by UDP port a program on a wildcard address is the only one to fail',
    options,
    async (t) => {
      const stage = new Stage(t);
      const { container: place } = openRoutedWorld(stage);
      await listenOn(stage, tools, place, everywhere);
      await transparently(stage, place, 'up', toLoopback);
      ipEach(place, ['rule del pref 63', '-6 rule del pref 63']);
      const { results, text } = await check(stage, place, toLoopback);
      assert.deepEqual(results, {
        '127.0.0.1:80/tcp transparent': 'works',
        '[::1]:80/tcp transparent': 'works',
        '127.0.0.1:53/udp transparent': 'missing-rule',
        '[::1]:53/udp transparent': 'missing-rule',
      });
      assert.match(text, /the program listens on a wildcard address and answers from another one/);
    },
  );

  test('without the privilege to have an address it says so', options, async (t) => {
    const stage = new Stage(t);
    const { host: place } = await containerWorld(stage, tools);
    await transparently(stage, place, 'up', toContainer);
    const words = ['setpriv', '--bounding-set', '-all', '--inh-caps', '-all', '--no-new-privs'];
    const { results, text } = await check(stage, { prefix: [...place.prefix, ...words] }, toContainer);
    for (const [upstream, result] of Object.entries(results)) {
      assert.equal(result, upstream.endsWith(' pseudo') ? 'works' : 'privilege', upstream);
    }
    assert.match(text, /nothing could be counted: .*CAP_NET_ADMIN/);
  });

  test(
    'with the privilege for sockets only, or without nft, it proves and cannot say why',
    options,
    async (t) => {
      const stage = new Stage(t);
      const { host: place } = await containerWorld(stage, tools);
      await transparently(stage, place, 'up', toIpv4);
      const words = ['setpriv', '--bounding-set', '-all,+net_raw', '--inh-caps', '-all'];
      const socketsOnly = { prefix: [...place.prefix, ...words] };
      assert.deepEqual((await check(stage, socketsOnly, toIpv4)).results, ipv4('works'));
      ipEach(place, ['rule del pref 60']);
      const { results, text } = await check(stage, socketsOnly, toIpv4);
      assert.deepEqual(results, ipv4('unknown'));
      assert.match(text, /run this check as root, with nft installed/);
      const withoutNft = [
        ...place.prefix,
        'unshare',
        '--mount',
        'sh',
        '-c',
        'mount -t tmpfs tmpfs /usr/sbin && exec "$@"',
        'sh',
      ];
      assert.match((await check(stage, { prefix: withoutNft }, toIpv4)).text, /nft is not installed/);
    },
  );

  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    test(`a check that ${signal} ends in the middle leaves nothing`, options, async (t) => {
      const stage = new Stage(t);
      const { host: place } = await containerWorld(stage, tools);
      const before = dump(place);
      const running = stage.background(place, process.execPath, [main, 'transparent', 'check', ...toIpv4]);
      await until(() => dump(place) !== before, 'its table');
      running.signal(signal);
      const { code } = await running.exit;
      assert.equal(code, 1);
      assert.equal(dump(place), before);
    });
  }

  test('a check that was killed leaves a table, which the next one or down removes', options, async (t) => {
    const stage = new Stage(t);
    const { host: place } = await containerWorld(stage, tools);
    const before = dump(place);
    const killed = async () => {
      const running = stage.background(place, process.execPath, [main, 'transparent', 'check', ...toIpv4]);
      await until(() => dump(place) !== before, 'its table');
      // It takes two seconds, and another one may take as long to begin.
      running.signal('SIGSTOP');
      const { code, stderr } = await transparent(stage, place, 'check', toIpv4);
      assert.equal(code, 75, 'meanwhile there is no other');
      assert.match(stderr, /another dualport transparent check runs/);
      running.signal('SIGKILL');
      await running.exit;
      assert.match(dump(place), /table inet dualport_check/);
    };
    await killed();
    await check(stage, place, toIpv4);
    assert.equal(dump(place), before);
    await killed();
    await transparently(stage, place, 'down');
    assert.equal(dump(place), before);
  });

  test('a client of a family that no upstream has is refused', options, async (t) => {
    const stage = new Stage(t);
    const { host: place } = openRoutedWorld(stage);
    const { code, stderr } = await transparent(stage, place, 'check', [...toIpv4, '--from', '2001:db8::1']);
    assert.equal(code, 2);
    assert.match(stderr, /--from: found 2001:db8::1, and no upstream with source transparent is of IPv6/);
    const bad = await transparent(stage, place, 'check', [...toIpv4, '--from', 'here']);
    assert.equal(bad.code, 2);
    assert.match(bad.stderr, /"here" is not an IP address/);
  });
});
