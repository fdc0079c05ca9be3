/** Random material for headers, the same in every run: a failure can be repeated from its seed. */
import type { HandmadeTlv, Party } from './handmade.ts';
import { handmadeTlv, handmadeV2, rawV2 } from './handmade.ts';

/** Whole numbers below a bound (mulberry32). */
export type Dice = (below: number) => number;

export function dice(seed: number): Dice {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

export function pick<T>(roll: Dice, choices: readonly [T, ...T[]]): T {
  return choices[roll(choices.length)] ?? choices[0];
}

export const randomBytes = (roll: Dice, length: number) =>
  Buffer.from(Array.from({ length }, () => roll(256)));

const dotted = (roll: Dice) => [roll(256), roll(256), roll(256), roll(256)].join('.');

function ipv6Text(roll: Dice): string {
  const groups = Array.from({ length: 8 }, () => roll(0x10000).toString(16));
  if (roll(3) === 0) groups.splice(6, 2, dotted(roll));
  if (roll(3) === 0) return `::ffff:${dotted(roll)}`;
  const from = roll(4);
  if (roll(2) === 0) return groups.join(':');
  return `${groups.slice(0, from).join(':')}::${groups.slice(from + 1 + roll(3)).join(':')}`;
}

/** A line of version 1, nearly always a legal one. */
export function randomV1(roll: Dice): Buffer {
  const address: (roll: Dice) => string = pick(roll, [dotted, ipv6Text]);
  const word = address === dotted ? 'TCP4' : 'TCP6';
  const port = () => roll(pick(roll, [10, 65536, 70000]));
  const text = `PROXY ${word} ${address(roll)} ${address(roll)} ${port()} ${port()}\r\n`;
  return Buffer.from(
    roll(10) === 0 ? `PROXY UNKNOWN${roll(2) ? ` ${'x'.repeat(roll(100))}` : ''}\r\n` : text,
  );
}

const party = (roll: Dice, ipv4: boolean): Party => ({
  ip: ipv4 ? dotted(roll) : randomBytes(roll, 16).toString('hex'),
  port: roll(65536),
});

function randomTlv(roll: Dice): HandmadeTlv {
  const type = pick(roll, [
    0x01,
    0x02,
    0x03,
    0x04,
    0x05,
    0x20,
    0x30,
    0xe0,
    0xea,
    0xee,
    0xf0,
    0xff,
    roll(256),
  ]);
  if (type === 0x20) {
    const inner = Array.from({ length: roll(3) }, () => ({
      type: 0x21 + roll(8),
      value: randomBytes(roll, roll(20)),
    }));
    const fixed = randomBytes(roll, roll(20) === 0 ? 4 : 5);
    return { type, value: Buffer.concat([fixed, ...inner.map(handmadeTlv)]) };
  }
  return { type, value: randomBytes(roll, roll(pick(roll, [1, 5, 40, 300]))) };
}

/** A header of version 2: mostly legal PROXY with TLVs, now and then any of the rarer kinds. */
export function randomV2(roll: Dice): Buffer {
  const transport = roll(2) === 0 ? 'udp' : 'tcp';
  if (roll(8) === 0) {
    const kind = pick(roll, [0x20, 0x21, 0x21, 0x22, 0x11]);
    return rawV2(
      kind,
      pick(roll, [0x00, 0x01, 0x10, 0x31, 0x32, roll(256)]),
      randomBytes(roll, roll(pick(roll, [4, 300]))),
    );
  }
  const ipv4 = roll(2) === 0;
  const tlvs = Array.from({ length: roll(5) }, () => randomTlv(roll));
  return handmadeV2(transport, party(roll, ipv4), party(roll, ipv4), tlvs, roll(2) === 0);
}

/** Damages up to three places: a bit, a byte, a byte too many or too few, a cut, a piece twice. */
export function mutated(roll: Dice, whole: Buffer): Buffer {
  let bytes = Buffer.from(whole);
  for (let left = roll(4); left > 0; left--) {
    const at = roll(bytes.length + 1);
    const [front, back] = [bytes.subarray(0, at), bytes.subarray(at)];
    const damage: readonly [Uint8Array[], ...Uint8Array[][]] = [
      [front, Uint8Array.of((back[0] ?? 0) ^ (1 << roll(8))), back.subarray(1)],
      [
        front,
        Uint8Array.of(pick(roll, [0x0d, 0x0a, 0x20, 0x30, 0x3a, 0x2e, 0x00, roll(256)])),
        back.subarray(1),
      ],
      [front, Uint8Array.of(pick(roll, [0x0d, 0x0a, 0x20, 0x30, 0x3a, 0x2e, 0x00, roll(256)])), back],
      [front, back.subarray(1)],
      [front],
      [front, bytes.subarray(roll(bytes.length + 1))],
    ];
    bytes = Buffer.concat(pick(roll, damage));
  }
  return bytes;
}
