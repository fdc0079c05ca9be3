/**
 * udp-load, held against a relay that loses, doubles, swaps and damages what it is told to, and knows how much.
 */
import assert from 'node:assert/strict';
import dgram from 'node:dgram';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { before, type TestContext, type TestOptions, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { buildLoad, loadProgram } from '../../bench/load/programs.ts';
import { here, Stage } from '../support/dualport.ts';
import { addresses, openWorld } from '../support/namespace.ts';
import { freePort, Running } from '../support/process.ts';
import { skipUnless } from '../support/requirements.ts';

const options = { skip: skipUnless('linux', 'gcc'), timeout: 20_000 };
const mostAttempts = 4;

before(() => {
  if (options.skip === false) buildLoad();
});

/**
 * A test that keeps time, in tenths of a second. Where others hold this process up for some of it, its relay is another one
 * than was asked for, so there are several attempts; a program that is wrong is wrong in each.
 */
function timed(title: string, needs: TestOptions, attempt: (t: TestContext) => Promise<void>): void {
  test(title, needs, async (t) => {
    for (let left = mostAttempts - 1; ; left--) {
      try {
        return await attempt(t);
      } catch (error) {
        if (left === 0) throw error;
      }
      await sleep(500);
    }
  });
}

/** Sends a datagram on, over the flow's own socket or another flow's. */
type Send = (datagram: Buffer, flow?: number) => void;

/** What becomes of the n-th numbered datagram, from 1, of trial `trial`, from 0. */
type Treatment = (datagram: Buffer, n: number, send: Send, trial: number) => void;

/** See bench/load/datagram.c. */
const kinds = { greeting: 1, numbered: 3 };
const kindOf = (datagram: Buffer) => datagram.readUInt32LE(0);
const runOf = (datagram: Buffer) => datagram.readUInt32LE(4);

interface RelayOptions {
  readonly treat?: Treatment;
  /** Which flow is given the answer to a flow's greeting, if any. */
  readonly answer?: (flow: number) => number | undefined;
  readonly host?: string;
}

interface Way {
  /** Where the relay listens, and where the sink must be. */
  readonly words: readonly string[];
  /** Numbered datagrams that came to the relay. */
  seen(): number;
}

/** A relay with an upstream socket for each client, which are flows in the order of their first greetings. */
async function relay(t: TestContext, { treat, answer, host = '127.0.0.1' }: RelayOptions): Promise<Way> {
  const type = host === '::1' ? 'udp6' : 'udp4';
  const sink = await freePort();
  const entrance = dgram.createSocket(type).bind(0, host);
  await once(entrance, 'listening');
  const flows: { readonly client: AddressInfo; readonly upstream: dgram.Socket }[] = [];
  const byPort = new Map<number, number>();
  const trials: number[] = [];
  let seen = 0;
  let closed = false;
  const flowOf = (client: AddressInfo): number => {
    const known = byPort.get(client.port);
    if (known !== undefined) return known;
    const flow = flows.length;
    const upstream = dgram.createSocket(type);
    upstream.on('error', () => {});
    upstream.on('message', (datagram) => {
      const receiver = flows[answer === undefined ? flow : (answer(flow) ?? -1)]?.client;
      if (receiver !== undefined) entrance.send(datagram, receiver.port, receiver.address);
    });
    flows.push({ client, upstream });
    byPort.set(client.port, flow);
    return flow;
  };
  entrance.on('message', (datagram, client) => {
    const own = flowOf(client as unknown as AddressInfo);
    const send: Send = (bytes, flow = own) => {
      if (!closed) flows[flow]?.upstream.send(bytes, sink, host);
    };
    if (treat === undefined || kindOf(datagram) !== kinds.numbered) return send(datagram);
    if (!trials.includes(runOf(datagram))) trials.push(runOf(datagram));
    treat(datagram, ++seen, send, trials.indexOf(runOf(datagram)));
  });
  t.after(() => {
    closed = true;
    entrance.close();
    for (const { upstream } of flows) upstream.close();
  });
  const words = ['--target', host, `${entrance.address().port}`, '--sink', host, `${sink}`];
  return { words, seen: () => seen };
}

function start(t: TestContext, ...args: readonly string[]): Running {
  return new Stage(t).background(here, loadProgram('udp-load'), args);
}

async function figures(t: TestContext, ...args: readonly string[]) {
  const { code, stdout, stderr } = await start(t, ...args).exit;
  assert.equal(stderr, '');
  assert.equal(code, 0);
  assert.equal(stdout.indexOf('\n'), stdout.length - 1, 'one line');
  return JSON.parse(stdout);
}

/** One trial of 400 datagrams in 0.2 s, or what `more` says. */
async function trial(t: TestContext, way: Way, more = '') {
  const words = `--rate 2000 --seconds 0.2 ${more}`.trim().split(' ');
  return await figures(t, 'rate', ...way.words, ...words);
}

/** The counts of a trial, without those that are 0. */
function counts(seen: Record<string, number>): Record<string, number> {
  const names = ['received', 'duplicates', 'reordered', 'corrupt', 'misrouted', 'stale'];
  return Object.fromEntries(names.flatMap((name) => (seen[name] ? [[name, seen[name]]] : [])));
}

for (const host of ['127.0.0.1', '::1']) {
  const needs = { ...options, skip: skipUnless('linux', 'gcc', 'ipv6') };
  timed(`a relay that does everything right loses nothing (${host})`, needs, async (t) => {
    const way = await relay(t, { treat: (datagram, _, send) => send(datagram), host });
    for (const more of ['', '--size 24', '--size 1472 --flows 7', '--flows 100']) {
      const seen = await trial(t, way, more);
      assert.deepEqual(counts(seen), { received: seen.sent }, more);
      assert.equal(seen.loss, 0);
      // The sender gives up what it is late for, so on a busy machine it sends less, never more.
      assert.ok(seen.sent <= 400 && seen.sent >= 200, `${seen.sent} sent`);
      // On a busy machine the end of sending is noticed late, too.
      const most = seen.sent / 0.2;
      assert.ok(
        seen.offered <= most + 1 && seen.offered > most * 0.6,
        `${seen.offered}/s, ${seen.sent} sent`,
      );
      const { delivered, offered } = seen;
      assert.ok(delivered <= offered + 0.1 && delivered > offered * 0.6, `${delivered} of ${offered}/s`);
    }
  });
}

test('the fields of a trial are these', options, async (t) => {
  const way = await relay(t, {});
  const fields = ['offered', 'sent', 'received', 'duplicates', 'reordered', 'corrupt', 'misrouted', 'stale'];
  assert.deepEqual(Object.keys(await trial(t, way)), [...fields, 'delivered', 'loss', 'drained']);
});

test('every 10th datagram dropped is a loss of 0.1', options, async (t) => {
  let dropped = 0;
  const way = await relay(t, {
    treat: (datagram, n, send) => {
      if (n % 10 === 0) dropped++;
      else send(datagram);
    },
  });
  const seen = await trial(t, way);
  assert.equal(seen.sent, way.seen());
  assert.deepEqual(counts(seen), { received: seen.sent - dropped });
  assert.ok(Math.abs(seen.loss - 0.1) < 0.003, `${seen.loss}`);
});

test('every 7th datagram sent twice is a duplicate and hides no loss', options, async (t) => {
  let doubled = 0;
  let dropped = 0;
  const way = await relay(t, {
    treat: (datagram, n, send) => {
      if (n % 7 === 3) return void dropped++;
      send(datagram);
      if (n % 7 !== 0) return;
      doubled++;
      send(datagram);
    },
  });
  const seen = await trial(t, way, '--flows 3');
  assert.deepEqual(counts(seen), { received: seen.sent - dropped, duplicates: doubled });
  assert.ok(Math.abs(seen.loss - dropped / seen.sent) < 1e-5, `${seen.loss}`);
});

test('swapped neighbours are reordered, and nothing else', options, async (t) => {
  let swapped = 0;
  let held: Buffer | undefined;
  const way = await relay(t, {
    treat: (datagram, n, send) => {
      if (n % 10 === 9) {
        held = datagram;
        return;
      }
      send(datagram);
      if (held === undefined) return;
      swapped++;
      send(held);
      held = undefined;
    },
  });
  const seen = await trial(t, way);
  assert.ok(swapped > 10);
  // The last one may still be held.
  assert.deepEqual(counts(seen), {
    received: seen.sent - (held === undefined ? 0 : 1),
    reordered: swapped,
  });
});

test('one datagram of a flow overtaking another flow is not reordered', options, async (t) => {
  const way = await relay(t, {
    treat: (datagram, _, send) => {
      // All of the first flow come later than those of the others around them.
      if (datagram.readUInt32LE(8) === 0) setTimeout(() => send(datagram), 20);
      else send(datagram);
    },
  });
  const seen = await trial(t, way, '--flows 4');
  assert.equal(counts(seen)['received'], seen.sent);
  assert.ok(seen.drained >= 0.015, `${seen.drained}`);
});

for (const size of [24, 64, 301]) {
  test(`a changed bit anywhere in ${size} bytes is seen`, options, async (t) => {
    let changed = 0;
    const way = await relay(t, {
      treat: (datagram, n, send) => {
        // The kind stays: that a datagram was none of ours is corrupt, too, but is told by another line.
        const at = 4 + (n % (size - 4));
        if (n % 2 === 0) {
          changed++;
          datagram[at] = (datagram[at] ?? 0) ^ (1 << (n % 8));
        }
        send(datagram);
      },
    });
    const seen = await trial(t, way, `--size ${size}`);
    assert.deepEqual(counts(seen), { received: seen.sent - changed, corrupt: changed });
  });
}

test('cut, prolonged and strange datagrams are corrupt', options, async (t) => {
  let wrong = 0;
  const way = await relay(t, {
    treat: (datagram, n, send) => {
      const made = [
        datagram.subarray(0, -1),
        Buffer.concat([datagram, datagram.subarray(0, 8)]),
        Buffer.alloc(0),
        Buffer.alloc(datagram.length),
        Buffer.concat([Buffer.of(9), datagram.subarray(1)]),
      ][n % 10];
      if (made !== undefined) wrong++;
      send(made ?? datagram);
    },
  });
  const seen = await trial(t, way, '--size 200');
  assert.ok(wrong > 100);
  assert.deepEqual(counts(seen), { received: seen.sent - wrong, corrupt: wrong });
});

test("a datagram over another flow's socket is misrouted and did not arrive", options, async (t) => {
  let astray = 0;
  const way = await relay(t, {
    treat: (datagram, n, send) => {
      const flow = datagram.readUInt32LE(8);
      if (n % 8 !== 0) return send(datagram);
      astray++;
      send(datagram, (flow + 1) % 3);
    },
  });
  const seen = await trial(t, way, '--flows 3');
  assert.deepEqual(counts(seen), { received: seen.sent - astray, misrouted: astray });
});

test('datagrams of a former run are stale, whatever numbers they have', options, async (t) => {
  const former: Buffer[] = [];
  let released = 0;
  const way = await relay(t, {
    treat: (datagram, n, send, run) => {
      if (run === 0) former.push(Buffer.from(datagram));
      // The second run must miss what the first one's datagrams would stand in for.
      if (run === 1 && n % 5 === 0) {
        const old = former[released];
        if (old !== undefined) released++;
        send(old ?? datagram);
      } else send(datagram);
    },
  });
  assert.deepEqual(counts(await trial(t, way)), { received: former.length });
  const seen = await trial(t, way);
  assert.ok(released > 20);
  assert.deepEqual(counts(seen), { received: seen.sent - released, stale: released });
});

timed('what was queued on the way when sending ended does not count as speed', options, async (t) => {
  const way = await relay(t, {
    treat: (datagram, _, send) => {
      setTimeout(() => send(datagram), 200);
    },
  });
  const seen = await trial(t, way);
  assert.deepEqual(counts(seen), { received: seen.sent });
  assert.ok(seen.drained > 0.18 && seen.drained < 0.3, `${seen.drained} s`);
  assert.ok(Math.abs(seen.delivered - seen.received / (0.2 + seen.drained)) < 50, `${seen.delivered}/s`);
});

timed('half a second after the end is waited no longer, though the sink is not quiet', options, async (t) => {
  const held: (() => void)[] = [];
  let chatter: NodeJS.Timeout | undefined;
  t.after(() => clearInterval(chatter));
  const way = await relay(t, {
    treat: (datagram, n, send) => {
      if (n % 2 === 0) return void held.push(() => send(datagram));
      send(datagram);
      chatter ??= setInterval(() => send(datagram), 10);
      // Of 0.8 s the first 0.2 are those of sending.
      if (n === 1) setTimeout(() => held.map((release) => release()), 800);
    },
  });
  const started = performance.now();
  const seen = await trial(t, way);
  assert.ok(performance.now() - started > 650);
  assert.equal(seen.received, seen.sent - held.length);
  assert.ok(seen.duplicates > 20 && seen.drained > 0.4, `${seen.duplicates} in ${seen.drained} s`);
});

test('an unanswered flow is an error and no figure', options, async (t) => {
  const mute = await relay(t, { answer: (flow) => (flow === 1 ? undefined : flow) });
  const crossed = await relay(t, { answer: (flow) => (flow < 2 ? 1 - flow : flow) });
  const nobody = ['--target', '127.0.0.1', '9', '--sink', '127.0.0.1', `${await freePort()}`];
  const errorOf = async (words: readonly string[], missing: number) => {
    const exit = await start(t, 'rate', ...words, '--flows', '4', '--rate', '1000').exit;
    const text = `${missing} of 4 flows to 127.0.0.1 port ${words[2]} were not answered within 2 s, all must be`;
    assert.deepEqual(exit, { code: 1, stdout: '', stderr: `udp-load: ${text}\n` });
  };
  await Promise.all([errorOf(mute.words, 1), errorOf(crossed.words, 2), errorOf(nobody, 4)]);
});

test('a greeting that is lost is repeated', options, async (t) => {
  let lost = 0;
  const way = await relay(t, { answer: (flow) => (++lost > 5 ? flow : undefined) });
  const seen = await trial(t, way);
  assert.deepEqual(counts(seen), { received: seen.sent });
  assert.ok(lost >= 6);
});

test('without a relay and a rate, all that is sent arrives and is counted', options, async (t) => {
  const port = `${await freePort()}`;
  const words = ['--target', '127.0.0.1', port, '--sink', '127.0.0.1', port, '--rate', '0'];
  for (const more of ['--flows 1', '--flows 5', '--size 24', '--size 65507']) {
    const seen = await figures(t, 'rate', ...words, '--seconds', '0.1', ...more.split(' '));
    const { received, ...wrong } = counts(seen);
    assert.deepEqual(wrong, {}, more);
    assert.ok(
      received !== undefined && received <= seen.sent && received > 50,
      `${received} of ${seen.sent}`,
    );
    assert.ok(Math.abs(seen.loss - (1 - received / seen.sent)) < 1e-5);
  }
});

timed('a sender that was held up does not make up for it in a burst', options, async (t) => {
  const way = await relay(t, {});
  const program = start(t, 'rate', ...way.words, '--rate', '5000', '--seconds', '0.5');
  await sleep(200);
  program.signal('SIGSTOP');
  await sleep(150);
  program.signal('SIGCONT');
  const { sent, received, offered } = JSON.parse((await program.exit).stdout);
  assert.equal(received, sent);
  assert.ok(sent > 500 && sent < 1900, `${sent} of 2500, 750 of them due meanwhile`);
  assert.ok(Math.abs(offered - sent / 0.5) < 500, `${offered}/s`);
});

for (const [train, size] of [
  [2, 24],
  [8, 500],
  [64, 1000],
  [40, 1200],
] as const) {
  test(`trains of ${train} × ${size} bytes are counted by their parts`, options, async (t) => {
    const port = `${await freePort()}`;
    const words = ['--target', '127.0.0.1', port, '--sink', '127.0.0.1', port];
    const more = ['--train', `${train}`, '--size', `${size}`, '--rate', '20000', '--seconds', '0.1'];
    const seen = await figures(t, 'rate', ...words, '--flows', '3', ...more);
    assert.ok(seen.sent > 0 && seen.sent % train === 0 && seen.sent <= 2000 + train, `${seen.sent} sent`);
    assert.deepEqual(counts(seen), { received: seen.sent });
    assert.ok(Math.abs(seen.gbps - (seen.delivered * size * 8) / 1e9) < 0.001, `${seen.gbps} Gbit/s`);
  });
}

test('a loss within trains is seen', options, async (t) => {
  let dropped = 0;
  const way = await relay(t, {
    treat: (datagram, n, send) => {
      if (n % 10 === 0) dropped++;
      else send(datagram);
    },
  });
  const seen = await trial(t, way, '--train 8 --size 300');
  assert.equal(seen.sent, way.seen());
  assert.deepEqual(counts(seen), { received: seen.sent - dropped });
});

/** Lets through at most so many a second, with room for a few ms. */
function bottleneck(perSecond: number): Treatment {
  const room = Math.ceil(perSecond * 0.004);
  let level = 0;
  let last = performance.now();
  return (datagram, _, send) => {
    const now = performance.now();
    level = Math.max(0, level - ((now - last) * perSecond) / 1000);
    last = now;
    if (level + 1 > room) return;
    level++;
    send(datagram);
  };
}

timed('the search finds what a bottleneck lets through', options, async (t) => {
  const way = await relay(t, { treat: bottleneck(5000) });
  const seen = await figures(t, 'search', ...way.words, '--seconds', '0.1', '--trials', '9');
  assert.deepEqual(Object.keys(seen), ['overload', 'rate', 'loss', 'trials']);
  assert.ok(seen.overload.loss > 0.5, `loss of ${seen.overload.loss} at overload`);
  assert.ok(seen.rate > 4300 && seen.rate < 5600, `${seen.rate}/s: ${JSON.stringify(seen)}`);
  assert.ok(seen.loss <= 0.001);
  const passed = seen.trials.filter(({ loss, drained }: Record<string, number>) =>
    [loss, drained].every((value, i) => (value ?? 1) <= (i === 0 ? 0.001 : 0.01)),
  );
  assert.equal(seen.rate, Math.max(...passed.map(({ offered }: { offered: number }) => offered)));
});

/** 3000/s in the first trial, and in the next ones the first `lost` datagrams are lost, as often as said. */
function slowThenLosing(lost: readonly number[]): Treatment {
  const slow = bottleneck(3000);
  let [current, n] = [0, 0];
  return (datagram, all, send, run) => {
    if (run === 0) return slow(datagram, all, send, run);
    if (run !== current) [current, n] = [run, 0];
    if (++n > (lost[run - 1] ?? 0)) send(datagram);
  };
}

const offeredOf = ({ offered }: { offered: number }) => offered;

timed('a rate at which one hiccup loses something is tried again', options, async (t) => {
  const way = await relay(t, { treat: slowThenLosing([8, 0]) });
  const seen = await figures(t, 'search', ...way.words, '--seconds', '0.1', '--trials', '2');
  const [first, second] = seen.trials.map(offeredOf);
  assert.equal(seen.trials.length, 2);
  assert.ok(seen.trials[0].loss > 0.001);
  assert.ok(Math.abs(second / first - 1) < 0.15, `${first}/s, then ${second}/s`);
  assert.equal(seen.rate, second);
});

timed('a rate at which far more is lost than in a hiccup is not tried again', options, async (t) => {
  const way = await relay(t, { treat: slowThenLosing([150, 0]) });
  const seen = await figures(t, 'search', ...way.words, '--seconds', '0.1', '--trials', '3');
  const [first, second] = seen.trials.map(offeredOf);
  assert.equal(seen.trials.length, 2);
  assert.ok(Math.abs(second / first - 0.75) < 0.15, `${first}/s, then ${second}/s`);
});

test('a relay that loses at any rate has none', options, async (t) => {
  const way = await relay(t, {
    treat: (datagram, n, send) => {
      if (n % 3 > 0) send(datagram);
    },
  });
  const seen = await figures(t, 'search', ...way.words, '--seconds', '0.02', '--trials', '4');
  assert.equal(seen.rate, 0);
  assert.ok(seen.trials.length >= 3);
});

test('a search counts the trial at overload', options, async (t) => {
  const way = await relay(t, { treat: bottleneck(3000) });
  const seen = await figures(t, 'search', ...way.words, '--seconds', '0.02', '--trials', '1');
  assert.deepEqual([seen.rate, seen.trials], [0, []]);
});

test('the client and the sink are in the network namespaces that are named', {
  ...options,
  skip: skipUnless('linux', 'gcc', 'root', 'netns'),
}, async (t) => {
  const { client, host } = openWorld(new Stage(t));
  const path = ({ name }: { readonly name: string }) => `/run/netns/${name}`;
  const inside = ['--client-netns', path(client), '--sink-netns', path(host)];
  for (const address of [addresses.host.v4, addresses.host.v6]) {
    const words = ['--target', address, '5000', '--sink', address, '5000', '--rate', '2000'];
    const seen = await figures(t, 'rate', ...words, ...inside, '--flows', '3', '--seconds', '0.1');
    assert.deepEqual(counts(seen), { received: seen.sent });
    assert.ok(seen.sent > 100);
    const large = await start(t, 'rate', ...words, ...inside, '--train', '3', '--size', '3000').exit;
    // It would not fit into the cable's 1500 bytes.
    assert.equal(large.code, 1);
    // Kernels differ in the error.
    assert.match(
      large.stderr,
      /^udp-load: this kernel or device refuses UDP_SEGMENT \([^)]+\), only --train 1/,
    );
  }
  const port = await freePort();
  const taken = dgram.createSocket('udp4').bind(port, '127.0.0.1');
  t.after(() => taken.close());
  await once(taken, 'listening');
  const here = ['--target', addresses.host.v4, '5000', '--sink', '127.0.0.1', `${port}`, '--rate', '1'];
  const exit = await start(t, 'rate', ...here, '--client-netns', path(client)).exit;
  assert.equal(exit.stderr, `udp-load: 127.0.0.1 port ${port}: Address already in use\n`);
  const missing = await start(t, 'rate', ...here, '--sink-netns', '/run/netns/none').exit;
  const text = 'network namespace /run/netns/none: No such file or directory';
  assert.deepEqual([missing.code, missing.stderr], [1, `udp-load: ${text}\n`]);
});

timed('SIGTERM ends it at once, also while it greets', options, async (t) => {
  const sending = start(t, 'rate', ...(await relay(t, {})).words, '--rate', '100', '--seconds', '60');
  const greeting = start(t, 'search', ...(await relay(t, { answer: () => undefined })).words);
  await sleep(200);
  const started = performance.now();
  for (const program of [sending, greeting]) program.signal('SIGTERM');
  const exits = await Promise.all([sending.exit, greeting.exit]);
  assert.ok(performance.now() - started < 200);
  assert.deepEqual(
    exits.map(({ stdout, stderr }) => stdout + stderr),
    ['', ''],
  );
});

test('a wrong command line is told in one line', options, async () => {
  const way = '--target ::1 5000 --sink ::1 5000';
  const all =
    '--target, --sink, --size, --flows, --seconds, --client-netns, --sink-netns, ' +
    'for rate --rate and --train, for search --trials and --loss';
  const cases: readonly (readonly [words: string, text: string])[] = [
    ['', 'rate or search is missing, a value must follow'],
    ['find', "found 'find', allowed are rate and search"],
    ['rate', '--target is missing, it must be there'],
    ['search --target ::1 5000', '--sink is missing, it must be there'],
    [`rate ${way}`, '--rate is missing, it must be there'],
    [`rate ${way} --trials 3`, `found '--trials', allowed are ${all}`],
    [`search ${way} --rate 3`, `found '--rate', allowed are ${all}`],
    [`search ${way} --train 3`, `found '--train', allowed are ${all}`],
    [`rate ${way} --rate 1 --size 23`, "--size is '23', allowed are integers from 24 to 65507"],
    [`rate ${way} --rate 1 --train 65`, "--train is '65', allowed are integers from 1 to 64"],
    [
      `rate ${way} --rate 1 --train 60 --size 1200`,
      'a train of 60 × 1200 bytes, at most 65507 bytes are allowed',
    ],
    [`rate ${way} --rate -1`, "--rate is '-1', allowed are numbers from 0 to 10000000"],
  ];
  for (const [words, text] of cases) {
    const args = words === '' ? [] : words.split(' ');
    const exit = await new Running(args, { command: [loadProgram('udp-load')] }).exit;
    assert.deepEqual(exit, { code: 2, stdout: '', stderr: `udp-load: ${text}\n` });
  }
});
