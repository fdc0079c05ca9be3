/**
 * The conditions behind every row, whatever was done to the relay: it is the same process, it gives back what the row
 * made it take, it serves on every port within 100 ms, and no error went unhandled.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { encodeLocal } from '../../src/proxy-protocol/codec.ts';
import { at, Peers } from '../engine/harness.ts';
import { addresses } from './network.ts';
import type { Descriptors, Relay } from './relay.ts';
import { type Listening, listenersOf, type Publication } from './subject.ts';
import { Broken, endingWithin, holds, lastLine, sees } from './verdict.ts';

const cleanMs = 100;
const givenBackMs = 6000;
/** Ends of the empty ones that the core keeps for the next bulk transfers: MAX_IDLE_PIPES of native/tcp.h. */
const keptPipes = 2 * 16;

export async function judge(relay: Relay, before: Descriptors): Promise<void> {
  holds(!relay.ended, `the relay has ended: ${lastLine(relay.said)}`);
  await givesBack(relay, before);
  await servesCleanly(relay, true);
  holds(!relay.isDualport || !/unhandled|uncaught/i.test(relay.said), 'an unhandled error in its log');
  holds(!relay.isDualport || relay.complaints === '', `on its standard error: ${lastLine(relay.complaints)}`);
}

async function givesBack(relay: Relay, before: Descriptors): Promise<void> {
  // It cannot be told to forget its UDP clients sooner than after 90 s.
  if (relay.subject.name === 'docker-proxy' && relay.wanted.publish.some(isUdp)) return;
  let left = '';
  const isNothingLeft = async () => {
    left = await remaining(relay, before);
    return left === '';
  };
  await sees(isNothingLeft, givenBackMs, () => `${givenBackMs / 1000} s later it still has ${left}`);
}

/** What it has more than before, in words. */
async function remaining(relay: Relay, before: Descriptors): Promise<string> {
  const now = relay.descriptors();
  const flows = relay.isDualport && relay.hasAdminSocket ? await relay.metric('dualport_flows_active') : 0;
  const parts = [
    now.sockets > before.sockets ? `${now.sockets - before.sockets} sockets more` : '',
    // Go keeps its pipes until the next collection of garbage; other programs' files are their own business.
    relay.isDualport && now.pipes > before.pipes + keptPipes
      ? `${now.pipes - before.pipes} ends of pipes more`
      : '',
    relay.isDualport && now.others > before.others
      ? `${now.others - before.others} other descriptors more`
      : '',
    flows > 0 ? `${flows} flows` : '',
  ];
  return parts.filter((part) => part !== '').join(', ');
}

const isUdp = ({ protocol }: Publication) => protocol === 'udp';

/**
 * A connection, or a datagram with its answer, by every way in, with sound upstreams behind the relay.
 *
 * @param everyWay false for TCP alone, however long it takes: what first connections open for good is open then
 */
export async function servesCleanly(relay: Relay, everyWay: boolean): Promise<void> {
  const { publish } = relay.wanted;
  const isPublished = (upstream: number) => publish.some(({ port }) => port === upstream);
  const reachable = listenersOf(relay.wanted).filter(
    ({ publication: { to } }) => to.host !== addresses.unreachable && !isPublished(to.port),
  );
  const peers = new Peers();
  try {
    await soundUpstreams(peers, reachable);
    for (const { publication, host } of reachable)
      if (everyWay || !isUdp(publication))
        await cleanly(peers, relay, publication, host, everyWay ? cleanMs : Number.POSITIVE_INFINITY);
  } finally {
    await peers.close();
  }
}

async function soundUpstreams(peers: Peers, listeners: readonly Listening[]): Promise<void> {
  const made = new Set<string>();
  for (const { protocol, to } of listeners.map(({ publication }) => publication)) {
    const name = `${protocol} ${to.host} ${to.port}`;
    if (made.has(name)) continue;
    made.add(name);
    const opened = protocol === 'tcp' ? peers.echo(to.host, to.port) : peers.udpEcho(to.host, to.port);
    await opened.catch((error: NodeJS.ErrnoException) => {
      throw error.code === 'EADDRINUSE' ? new Broken('afterwards it holds the port of its upstream') : error;
    });
  }
}

/** The quickest of three, because other programs use this machine, too. */
async function cleanly(
  peers: Peers,
  relay: Relay,
  publication: Publication,
  host: string,
  limitMs: number,
): Promise<void> {
  const ask = isUdp(publication) ? cleanDatagram : cleanConnection;
  const to = host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host;
  const times: number[] = [];
  for (let i = 0; i < 3; i++) {
    const start = performance.now();
    await ask(peers, relay, to, publication.port);
    times.push(performance.now() - start);
    if ((times.at(-1) ?? 0) <= limitMs) return;
  }
  throw new Broken(`afterwards a clean connection takes ${Math.min(...times).toFixed(0)} ms`);
}

async function cleanConnection(peers: Peers, relay: Relay, host: string, port: number): Promise<void> {
  const client = await peers.connect(at(host, port));
  client.socket.end(`${relay.wanted.accept === undefined ? '' : 'PROXY UNKNOWN\r\n'}clean`);
  const ending = await endingWithin(client, 3000);
  client.socket.destroy();
  // The echo has the header in it where the upstream gets one.
  const whole = client.received.toString('latin1').endsWith('clean');
  holds(ending === 'end' && whole, `afterwards a clean connection ends with ${ending}`);
}

async function cleanDatagram(peers: Peers, relay: Relay, host: string, port: number): Promise<void> {
  const client = await peers.udp(host, at(host, port));
  const header = relay.wanted.accept === undefined ? Buffer.alloc(0) : encodeLocal(2, 'udp');
  client.send(Buffer.concat([header, Buffer.from('clean')]));
  await sees(
    () => client.received.length > 0,
    2000,
    () => 'afterwards a clean datagram has no answer',
  );
  client.close();
}

/** Lets what was given back a moment ago arrive, so that the count is of what stays. */
export async function restingDescriptors(relay: Relay): Promise<Descriptors> {
  let least = relay.descriptors();
  for (let i = 0; i < 5; i++) {
    await sleep(10);
    const now = relay.descriptors();
    if (total(now) < total(least)) least = now;
  }
  return least;
}

const total = ({ sockets, pipes, others }: Descriptors) => sockets + pipes + others;
