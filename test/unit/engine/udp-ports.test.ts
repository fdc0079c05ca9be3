import assert from 'node:assert/strict';
import { networkInterfaces } from 'node:os';
import { test } from 'node:test';
import { UdpPorts } from '../../../src/engine/udp-ports.ts';
import type { Address } from '../../../src/net/address.ts';
import { at } from '../../engine/harness.ts';

const { address: ours } = at('198.18.0.1', 0);

test('a datagram is of our own when it comes from the port of a listener, at an address of this host', () => {
  const ports = new UdpPorts(() => [ours]);
  ports.open(53);
  assert.equal(ports.isOwn(at('198.18.0.1', 53)), true);
  assert.equal(ports.isOwn(at('127.0.0.1', 53)), true, 'loopback needs no interface');
  assert.equal(ports.isOwn(at('::1', 53)), true);
  assert.equal(ports.isOwn(at('198.18.0.1', 54)), false, 'another port');
  assert.equal(ports.isOwn(at('198.18.0.2', 53)), false, 'another host');
  ports.close(53);
  assert.equal(ports.isOwn(at('198.18.0.1', 53)), false, 'no listener any more');
});

test('a flood that forges the port of a listener has the host asked for its addresses once a second', () => {
  let [asked, nowMs]: [number, number] = [0, 0];
  let addresses: readonly Address[] = [];
  const ports = new UdpPorts(
    () => {
      asked++;
      return addresses;
    },
    () => nowMs,
  );
  ports.open(53);
  for (let i = 0; i < 1000; i++) ports.isOwn(at(`198.19.${i >> 8}.${i & 255}`, 54));
  assert.equal(asked, 0, 'of other ports nothing is asked');
  for (let i = 0; i < 1000; i++) ports.isOwn(at(`198.19.${i >> 8}.${i & 255}`, 53));
  assert.equal(asked, 1);
  addresses = [ours];
  nowMs = 999;
  assert.equal(ports.isOwn(at('198.18.0.1', 53)), false);
  nowMs = 1000;
  assert.equal(ports.isOwn(at('198.18.0.1', 53)), true, 'a new address is known a second later');
  assert.equal(asked, 2);
});

test('unless told otherwise these are the addresses of the interfaces', () => {
  const ports = new UdpPorts();
  ports.open(53);
  const all = Object.values(networkInterfaces()).flatMap((addresses = []) => addresses);
  for (const { address } of all) assert.equal(ports.isOwn(at(address, 53)), true, address);
  assert.equal(ports.isOwn(at('203.0.113.7', 53)), false);
});
