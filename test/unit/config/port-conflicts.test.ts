import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { indexListeners, refuseFullRanges } from '../../../src/config/port-conflicts.ts';
import { formatPortSpec, type PublishedPort, parsePortSpec } from '../../../src/config/port-spec.ts';
import { equalAddress, isIpv4, isUnspecified } from '../../../src/net/address.ts';

const at = { origin: 'flag', text: '--publish' } as const;

function publications(specs: readonly string[]) {
  return specs.flatMap((spec) =>
    parsePortSpec(spec).map((port) => ({ name: formatPortSpec(port), port, at })),
  );
}

function accepts(check: () => unknown): boolean {
  try {
    check();
    return true;
  } catch {
    return false;
  }
}

/** What the kernel would say of two listeners, straight from its rule. */
function clash(a: PublishedPort, b: PublishedPort): boolean {
  if (a.protocol !== b.protocol || a.hostPorts?.first !== b.hostPorts?.first) return false;
  if (a.host === undefined || b.host === undefined) return true;
  if (isIpv4(a.host.address) !== isIpv4(b.host.address)) return false;
  if (isUnspecified(a.host.address) || isUnspecified(b.host.address)) return true;
  return equalAddress(a.host.address, b.host.address);
}

const hosts = ['', '0.0.0.0:', '[::]:', '127.0.0.1:', '127.0.0.2:', '[::1]:', '[2001:db8::1]:'];

test('known ports are accepted exactly when no two of them clash', () => {
  const spec = fc
    .tuple(fc.constantFrom(...hosts), fc.constantFrom(1, 2, 3), fc.nat(9), fc.constantFrom('tcp', 'udp'))
    .map(([host, port, container, protocol]) => `${host}${port}:${container + 1}/${protocol}`);
  fc.assert(
    fc.property(fc.uniqueArray(spec, { maxLength: 5 }), (specs) => {
      const all = publications(specs);
      const anyClash = all.some((a, i) => all.slice(i + 1).some((b) => clash(a.port, b.port)));
      assert.equal(
        accepts(() => indexListeners(all)),
        !anyClash,
      );
    }),
    { numRuns: 2000 },
  );
});

/** Tries every way to give each range a port of its own. */
function fits(ranges: readonly (readonly [number, number])[], taken: ReadonlySet<number>): boolean {
  const [range, ...rest] = ranges;
  if (range === undefined) return true;
  for (let port = range[0]; port <= range[1]; port++) {
    if (!taken.has(port) && fits(rest, new Set([...taken, port]))) return true;
  }
  return false;
}

test('ranges of one host are refused exactly when there is no way to give each a port', () => {
  const range = fc.tuple(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 3 }));
  fc.assert(
    fc.property(
      fc.array(range, { maxLength: 5 }),
      fc.uniqueArray(fc.integer({ min: 1, max: 8 })),
      (spans, known) => {
        const ranges = spans.map(([first, more]) => [first, first + more] as const);
        const all = publications([
          ...known.map((port) => `${port}:99`),
          ...ranges.map(([first, last], i) => `${first}-${last}:${i + 1}`),
        ]);
        const index = indexListeners(all);
        assert.equal(
          accepts(() => refuseFullRanges(all, index)),
          fits(ranges, new Set(known)),
        );
      },
    ),
    { numRuns: 2000 },
  );
});
