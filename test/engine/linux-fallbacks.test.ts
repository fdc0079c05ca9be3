/**
 * What the Linux engine does without when this machine refuses it: splice, pipes, trains of datagrams out (GSO) and
 * in (GRO). The built program runs with the Linux engine and is refused the call: by strace, which is attached to
 * it once it is ready, or by a library in front of libc where only some uses of a call are to fail. Every byte
 * must arrive all the same, the program lives, and its log says once what it does without.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import dgram from 'node:dgram';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import net, { type Socket } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Dualport, here, type Place, Stage } from '../support/dualport.ts';
import { freePort } from '../support/process.ts';
import { skipWithoutCore } from '../support/requirements.ts';
import { until } from './harness.ts';

const MiB = 1024 * 1024;

/* The program */

async function dualport(stage: Stage, place: Place, port: number, upstreamPort: number): Promise<Dualport> {
  const rule = `127.0.0.1:${port}:${upstreamPort}`;
  return stage.dualport(place, [
    ...['serve', '--engine', 'linux', '--to', '127.0.0.1', '-p', `${rule}/tcp`, '-p', `${rule}/udp`],
  ]);
}

/** More than a sweep of the engine, which is when it tells. */
const toldWithinMs = 1000;
/** The relay splices only what comes faster than it is copied, and on a busy machine that may not be the first. */
const mostRounds = 10;

/** The log names exactly this one, and only once, however often it is met. */
async function doesWithout(
  { running }: Dualport,
  fallback: string,
  traffic: () => Promise<void>,
): Promise<void> {
  const said = () => running.said('falling back').length > 0;
  for (let round = 0; round < mostRounds && !said(); round++) {
    await traffic();
    await until(said, '', toldWithinMs).catch(() => {});
  }
  assert.ok(said(), `it says that it falls back: ${running.stdout}`);
  await traffic();
  await sleep(toldWithinMs);
  const named = running.said('falling back').map((line) => line['fallback']);
  assert.deepEqual(named, [fallback]);
  assert.deepEqual([running.child.exitCode, running.child.signalCode], [null, null]);
}

/** From now on a running program is refused this system call. */
async function refuse(stage: Stage, { running }: Dualport, call: string, errno: string): Promise<void> {
  const strace = stage.start(here, 'strace', [
    ...['-f', '-p', String(running.child.pid), '-o', '/dev/null'],
    ...['-e', `trace=${call}`, '-e', `inject=${call}:error=${errno}`],
  ]);
  await until(() => strace.stderr.includes('attached'), `strace: ${strace.stderr}`);
}

/* Traffic */

const bulk = 8 * MiB;
const hash = (data: Buffer) => createHash('sha256').update(data).digest('hex');

/**
 * Sends 8 MiB, ends, and takes what comes until the end. Reading begins late, so that the relay finds full buffers:
 * it splices only what comes faster than it is copied.
 */
async function swap(socket: Socket, data: Buffer): Promise<string> {
  const received: Buffer[] = [];
  socket.end(data);
  await sleep(100);
  socket.on('data', (chunk) => received.push(chunk));
  await once(socket, 'end');
  return hash(Buffer.concat(received));
}

async function tcpPasses(stage: Stage, port: number, upstreamPort: number): Promise<void> {
  const data = [randomBytes(bulk), randomBytes(bulk)] as const;
  const server = net.createServer({ allowHalfOpen: true }).listen(upstreamPort, '127.0.0.1');
  stage.undo(() => server.close());
  await once(server, 'listening');
  const atUpstream = once(server, 'connection').then(([socket]) => swap(socket as Socket, data[1]));
  const client = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  stage.undo(() => client.destroy());
  const atClient = await swap(client, data[0]);
  assert.deepEqual([await atUpstream, atClient], [hash(data[0]), hash(data[1])]);
  server.close();
}

async function bound(stage: Stage, port: number): Promise<dgram.Socket> {
  const socket = dgram.createSocket('udp4').bind(port, '127.0.0.1');
  await once(socket, 'listening');
  stage.undo(() => socket.unref());
  return socket;
}

/** 200 datagrams of many sizes, and then bursts of one size, which make trains; all of them come back. */
async function udpPasses(stage: Stage, port: number, upstreamPort: number): Promise<void> {
  const upstream = await bound(stage, upstreamPort);
  const client = await bound(stage, 0);
  const waiting: { data: Buffer; from: dgram.RemoteInfo }[] = [];
  const received: Buffer[] = [];
  upstream.on('message', (data, from) => waiting.push({ data, from }));
  client.on('message', (data) => received.push(data));
  const sent: Buffer[] = [];
  const exchange = async (datagrams: readonly Buffer[]) => {
    sent.push(...datagrams);
    for (const data of datagrams) client.send(data, port, '127.0.0.1');
    await until(() => waiting.length === datagrams.length, `${datagrams.length}, ${waiting.length} came`);
    for (const { data, from } of waiting.splice(0)) upstream.send(data, from.port, from.address);
    await until(() => received.length === sent.length, `${sent.length} answers, ${received.length} came`);
  };
  for (let i = 0; i < 200; i += 10) {
    await exchange(Array.from({ length: 10 }, (_, n) => randomBytes(1 + (((i + n) * 97) % 1472))));
  }
  for (let i = 0; i < 5; i++) await exchange(Array.from({ length: 60 }, () => randomBytes(1200)));
  assert.deepEqual(received.map(hash), sent.map(hash));
  upstream.close();
  client.close();
}

/* TCP */

const refusals = [
  { call: 'splice', errno: 'EINVAL', fallback: 'splice' },
  { call: 'splice', errno: 'EPERM', fallback: 'splice' },
  { call: 'splice', errno: 'ENOSYS', fallback: 'splice' },
  { call: 'pipe2', errno: 'EMFILE', fallback: 'pipes' },
] as const;

for (const { call, errno, fallback } of refusals) {
  const title = `without ${fallback} (${call} says ${errno}) 8 MiB each way arrive whole, twice`;
  test(title, { skip: skipWithoutCore('strace'), timeout: 60_000 }, async (context) => {
    const stage = new Stage(context);
    const [port, upstreamPort] = [await freePort(), await freePort()];
    const subject = await dualport(stage, here, port, upstreamPort);
    await refuse(stage, subject, call, errno);
    await doesWithout(subject, fallback, () => tcpPasses(stage, port, upstreamPort));
  });
}

/* UDP: which use of a call is meant stands in its arguments, and strace does not look at those. */

const shim = `
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static int refuses(const char *what) {
  const char *refused = getenv("REFUSED");
  return refused != NULL && strcmp(refused, what) == 0;
}

static int is_refused_train(const struct msghdr *message) {
  if (!refuses("send")) return 0;
  for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR((struct msghdr *)message, c))
    if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_SEGMENT) return 1;
  return 0;
}

static int refusal(void) {
  errno = atoi(getenv("REFUSAL"));
  return -1;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
  ssize_t (*real)(int, const struct msghdr *, int) = dlsym(RTLD_NEXT, "sendmsg");
  return is_refused_train(message) ? refusal() : real(fd, message, flags);
}

int sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags) {
  int (*real)(int, struct mmsghdr *, unsigned, int) = dlsym(RTLD_NEXT, "sendmmsg");
  unsigned good = 0;
  while (good < count && !is_refused_train(&messages[good].msg_hdr)) good++;
  return good == 0 && count > 0 ? refusal() : real(fd, messages, good, flags);
}

int setsockopt(int fd, int level, int name, const void *value, socklen_t length) {
  int (*real)(int, int, int, const void *, socklen_t) = dlsym(RTLD_NEXT, "setsockopt");
  if (level == IPPROTO_UDP && name == UDP_GRO && refuses("receive")) return refusal();
  return real(fd, level, name, value, length);
}

int getsockopt(int fd, int level, int name, void *value, socklen_t *length) {
  int (*real)(int, int, int, void *, socklen_t *) = dlsym(RTLD_NEXT, "getsockopt");
  if (level == IPPROTO_UDP && name == UDP_SEGMENT && refuses("ask")) return refusal();
  return real(fd, level, name, value, length);
}
`;

/** In front of libc. */
function withShim(stage: Stage, refused: string, errno: number): Place {
  const directory = stage.directory();
  const [source, library] = [join(directory, 'shim.c'), join(directory, 'shim.so')];
  writeFileSync(source, shim);
  const built = spawnSync('gcc', [
    '-shared',
    '-fPIC',
    '-O1',
    '-Wall',
    '-Werror',
    '-o',
    library,
    source,
    '-ldl',
  ]);
  assert.equal(built.status, 0, String(built.stderr));
  return { prefix: ['env', `LD_PRELOAD=${library}`, `REFUSED=${refused}`, `REFUSAL=${errno}`] };
}

async function datagramsPass(
  context: TestContext,
  refused: string,
  errno: number,
  fallback: string,
): Promise<void> {
  const stage = new Stage(context);
  const [port, upstreamPort] = [await freePort(), await freePort()];
  const subject = await dualport(stage, withShim(stage, refused, errno), port, upstreamPort);
  await doesWithout(subject, fallback, () => udpPasses(stage, port, upstreamPort));
}

const [EIO, EINVAL, ENOPROTOOPT] = [5, 22, 92];

for (const [name, errno] of Object.entries({ EIO, EINVAL })) {
  const title = `without GSO (trains are sent and refused with ${name}) all datagrams arrive in order`;
  test(title, { skip: skipWithoutCore('gcc'), timeout: 60_000 }, (context) =>
    datagramsPass(context, 'send', errno, 'gso'),
  );
}

test(
  'without GSO (the kernel does not know it) all datagrams arrive in order',
  {
    skip: skipWithoutCore('gcc'),
    timeout: 60_000,
  },
  (context) => datagramsPass(context, 'ask', ENOPROTOOPT, 'gso'),
);

test(
  'without GRO all datagrams arrive in order',
  { skip: skipWithoutCore('gcc'), timeout: 60_000 },
  (context) => datagramsPass(context, 'receive', ENOPROTOOPT, 'gro'),
);

test('nothing is refused: nothing is said of fallbacks', {
  skip: skipWithoutCore('gcc'),
  timeout: 60_000,
}, async (context) => {
  const stage = new Stage(context);
  const [port, upstreamPort] = [await freePort(), await freePort()];
  const subject = await dualport(stage, withShim(stage, 'nothing', EIO), port, upstreamPort);
  await tcpPasses(stage, port, upstreamPort);
  await udpPasses(stage, port, upstreamPort);
  assert.deepEqual(subject.running.said('falling back'), []);
});
