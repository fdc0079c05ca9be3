/**
 * The decoder beside nginx and HAProxy as running programs, on headers that none of the three has made: damaged
 * and unusual ones, and every value of the two bytes that say version, command, family and transport. Where they
 * differ, the difference is one of those in peers-disagreements.ts, with what the specification has to say.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { formatAddress, tryParseAddress } from '../../src/net/address.ts';
import { decode } from '../../src/proxy-protocol/codec.ts';
import { here, Stage } from '../support/dualport.ts';
import { startHaproxy } from '../support/haproxy.ts';
import { announced, startNginx } from '../support/nginx.ts';
import { exchanged } from '../support/one-exchange.ts';
import { freePort } from '../support/process.ts';
import { skipUnless } from '../support/requirements.ts';
import { rawV2 } from '../unit/proxy-protocol/handmade.ts';
import { dice, mutated, randomV1, randomV2 } from '../unit/proxy-protocol/random.ts';
import { type Disagreement, disagreements, type Reading } from './peers-disagreements.ts';

const skip = skipUnless('linux', 'nginx-stream', 'haproxy');

const generated = 20_000;
/** Connections at once. */
const lanes = 48;

/** A program that reads headers, and what has to stand behind a header for it to answer. */
interface Peer {
  readonly name: Disagreement['peer'];
  readonly payload: string;
  port: number;
}

const nginx: Peer = { name: 'nginx', payload: '', port: 0 };
/** Empty lines in front of a request count for nothing: a header that takes some of them leaves a request all the same. */
const haproxy: Peer = { name: 'HAProxy', payload: `${'\r\n'.repeat(200)}GET / HTTP/1.0\r\n\r\n`, port: 0 };

describe('beside nginx and HAProxy', { skip }, () => {
  const stage = new Stage({ after });

  before(async () => {
    for (const peer of [nginx, haproxy]) peer.port = await freePort();
    const stream = `server { listen 127.0.0.1:${nginx.port} proxy_protocol; return "${announced}"; }`;
    await startNginx(stage, here, { stream }, [['tcp', nginx.port]]);
    const answer = '"%[src] %[src_port] %[dst] %[dst_port]"';
    await startHaproxy(
      stage,
      here,
      `frontend receiver
  mode http
  no log
  bind 127.0.0.1:${haproxy.port} accept-proxy
  http-request return status 200 content-type text/plain lf-string ${answer}`,
      [['tcp', haproxy.port]],
    );
  });

  for (const peer of [nginx, haproxy]) {
    test(`${generated} generated headers are read as by ${peer.name}, or differently for a reason`, async () => {
      const roll = dice(20_260_427);
      await compare(peer, generated, () => {
        const header = roll(2) === 0 ? randomV1(roll) : randomV2(roll);
        return roll(4) === 0 ? header : mutated(roll, header);
      });
    });

    test(`so are all 65536 values of bytes 13 and 14, by ${peer.name}`, async () => {
      await compare(peer, 65_536, (i) => rawV2(i >> 8, i & 255, eitherFamily));
    });
  }

  test('every disagreement of the list is one that was seen', (context) => {
    const { tried, read, crashed, accepted, differ } = tally;
    const share = `${((100 * accepted) / read).toFixed(1)} %`;
    const differs = `differ haproxy ${differ.HAProxy} nginx ${differ.nginx} (listed)`;
    const lost = `crash ${crashed}   hang ${tried - read - crashed}`;
    context.diagnostic(`proxy hdr ${tried} tried   accepted ${share}   ${lost}   ${differs}`);
    const seen = disagreements.filter((each) => met.has(each));
    assert.deepEqual(
      disagreements.filter((each) => !seen.includes(each)),
      [],
    );
  });
});

const met = new Set<Disagreement>();
/** Headers: those of them that our decoder came to an end with, and took; those that somebody read differently. */
const tally = { tried: 0, read: 0, crashed: 0, accepted: 0, differ: { nginx: 0, HAProxy: 0 } };

/** Two IPv6 endpoints, or two IPv4 ones and a field that is to be skipped: documentation addresses throughout. */
const eitherFamily = Buffer.concat([
  Buffer.from('c6336401cb0071020401bbbb', 'hex'),
  Buffer.from([4, 0, 21]),
  Buffer.alloc(21, 7),
]);

/** @param header the header of a number */
async function compare(peer: Peer, count: number, header: (index: number) => Buffer): Promise<void> {
  const unexplained: string[] = [];
  let next = 0;
  const lane = async () => {
    for (let index = next++; index < count; index = next++) {
      const bytes = Buffer.concat([header(index), Buffer.from(peer.payload)]);
      const [ours, theirs] = [ownReading(bytes), await readingOf(peer, bytes)];
      if (agree(ours, theirs)) continue;
      tally.differ[peer.name]++;
      const reason = disagreements.find(
        (each) => each.peer === peer.name && explains(each, ours, theirs, bytes),
      );
      if (reason === undefined)
        unexplained.push(`${bytes.toString('latin1')}: ${ours}, ${peer.name} ${theirs}`);
      else met.add(reason);
    }
  };
  await Promise.all(Array.from({ length: lanes }, lane));
  assert.deepEqual(unexplained.slice(0, 20), [], `${unexplained.length} of ${count}`);
}

function agree(ours: Reading, theirs: Reading): boolean {
  if (ours.startsWith('refused')) return theirs === 'refused';
  return ours === theirs || theirs === takenSomehow;
}

function explains(each: Disagreement, ours: Reading, theirs: Reading, bytes: Buffer): boolean {
  return each.ours.test(ours) && each.theirs.test(theirs) && each.when?.(bytes) !== false;
}

/** HAProxy took the header, and found no request behind it that it could answer. */
const takenSomehow = 'taken';

/** What dualport makes of a header that is followed by the end of the stream. */
function ownReading(bytes: Buffer): Reading {
  const reading = decodedReading(bytes);
  tally.read++;
  if (!reading.startsWith('refused')) tally.accepted++;
  return reading;
}

function decodedReading(bytes: Buffer): Reading {
  const decoded = decoding(bytes);
  if (decoded.state === 'more') return 'refused: cut short';
  if (decoded.state === 'error') return `refused: ${decoded.error}`;
  const { source, destination } = decoded.header;
  if (source === undefined || destination === undefined) return 'nobody named';
  const [from, to] = [source, destination].map(({ address, port }) => `${formatAddress(address)} ${port}`);
  return `${from} ${to}`;
}

function decoding(bytes: Buffer): ReturnType<typeof decode> {
  tally.tried++;
  try {
    return decode(bytes, 'tcp');
  } catch (error) {
    tally.crashed++;
    throw error;
  }
}

async function readingOf(peer: Peer, bytes: Buffer): Promise<Reading> {
  const { answer, own } = await exchanged(peer.port, bytes);
  const text = peer === haproxy ? answer.split('\r\n\r\n')[1] : answer;
  if (text === undefined || text === '') return 'refused';
  if (/^HTTP\/1\.\d 400/.test(answer)) return takenSomehow;
  const [source = '', from, destination = '', to] = text.split(' ');
  if (source === '' || (source === '127.0.0.1' && Number(from) === own)) return 'nobody named';
  // Both write port 0 as nothing.
  return `${canonical(source)} ${from || 0} ${canonical(destination)} ${to || 0}`;
}

function canonical(text: string): string {
  const address = tryParseAddress(text);
  return address === undefined ? text : formatAddress(address);
}
