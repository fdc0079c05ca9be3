/**
 * One IPv4 address in every way it can be spelled, and everything that only looks like it. The tests of
 * addresses, prefixes and access rules all go through these: one spelling that is taken for something else is
 * one way around a rule.
 */

/** 192.0.2.1: plain, and v4-mapped in dotted, hexadecimal, expanded, upper case and any mixture. */
export const spelledIpv4: readonly string[] = [
  '192.0.2.1',
  '::ffff:192.0.2.1',
  '::FFFF:192.0.2.1',
  '::fFFf:192.0.2.1',
  '::ffff:c000:201',
  '::ffff:c000:0201',
  '::FFFF:C000:0201',
  '::fffF:C000:201',
  '0::ffff:192.0.2.1',
  '::0:ffff:192.0.2.1',
  '0:0::ffff:c000:201',
  '::0:0:0:ffff:c000:201',
  '0:0:0::ffff:192.0.2.1',
  '0:0:0:0::ffff:192.0.2.1',
  '::0:0:0:0:ffff:c000:201',
  '0:0:0:0:0:ffff:192.0.2.1',
  '0:0:0:0:0:FFFF:c000:201',
  '0000:0000:0000:0000:0000:ffff:192.0.2.1',
  '0000:0000:0000:0000:0000:FFFF:C000:0201',
  '0:00:000:0000:0:ffff:c000:0201',
];

/** IPv6 addresses with 192.0.2.1 somewhere inside, each with its RFC 5952 text. */
export const lookAlikes: Readonly<Record<string, string>> = {
  // IPv4-compatible (RFC 4291 2.5.5.1)
  '::192.0.2.1': '::c000:201',
  '::C000:0201': '::c000:201',
  '0:0:0:0:0:0:192.0.2.1': '::c000:201',
  // IPv4-translated, of SIIT (RFC 2765)
  '::ffff:0:192.0.2.1': '::ffff:0:c000:201',
  '::FFFF:0:C000:201': '::ffff:0:c000:201',
  // NAT64, well-known and local (RFC 6052, RFC 8215)
  '64:ff9b::192.0.2.1': '64:ff9b::c000:201',
  '64:FF9B::c000:201': '64:ff9b::c000:201',
  '64:ff9b:1::192.0.2.1': '64:ff9b:1::c000:201',
  // 6to4 (RFC 3056), Teredo (RFC 4380), ISATAP (RFC 5214)
  '2002:c000:201::': '2002:c000:201::',
  '2002:C000:0201::1': '2002:c000:201::1',
  '2001:0:c000:201::': '2001:0:c000:201::',
  'fe80::5efe:192.0.2.1': 'fe80::5efe:c000:201',
  // One bit or one group beside ::ffff:0:0/96
  '::fffe:192.0.2.1': '::fffe:c000:201',
  '::7fff:c000:201': '::7fff:c000:201',
  '::1:ffff:192.0.2.1': '::1:ffff:c000:201',
  '1::ffff:192.0.2.1': '1::ffff:c000:201',
  '8000::ffff:c000:201': '8000::ffff:c000:201',
  '::ffff:ffff:c000:201': '::ffff:ffff:c000:201',
  '::ffff:c000:201:0': '::ffff:c000:201:0',
  '2001:db8::ffff:192.0.2.1': '2001:db8::ffff:c000:201',
};

/** Texts that other parsers take for 192.0.2.1, or nearly, and that are no address here. */
export const notAddresses: readonly string[] = [
  '192.0.02.1',
  '192.0.2.01',
  '192.00.2.1',
  '0300.0.2.1',
  '0xc0.0.2.1',
  '192.0.513',
  '192.513',
  '3221225985',
  '0xc0000201',
  '192.0.2.1.',
  '192.0.2.1.0',
  '192.0.2.256',
  '192.0.2.-1',
  '192.0.2.+1',
  '192.0..1',
  ' 192.0.2.1',
  '192.0.2.1 ',
  '192.0.2.1\n',
  '192.0.2.1\0',
  '１92.0.2.1',
  '192。0。2。1',
  '192.0.2.1/32',
  '192.0.2.1:80',
  '::ffff:192.0.2.01',
  '::ffff:0300.0.2.1',
  '::ffff:192.0.2',
  '::ffff:192.0.2.1.0',
  '::ffff:192.0.2.256',
  '::ffff:192.0.2.1:0',
  '::ffff:0c000:201',
  '::ffff:c000:201/128',
  '::ffff:c000:201%eth0',
  '[::ffff:c000:201]',
  ':::ffff:192.0.2.1',
  ':0:0:0:0:ffff:192.0.2.1',
  '0::0::ffff:192.0.2.1',
  '0:0:0:0:0:0:ffff:192.0.2.1',
  '0:0:0:0:ffff:192.0.2.1',
  '0:0:0:0:0:ffff::c000:201',
  '::ffff:192.0.2.1::',
  '::ffff:c000:20g',
  '::ｆfff:c000:201',
  '0:0:0:0:0:ffff:c000:201:',
  '::ffff:192.0.2.1 ',
  '',
  ':',
  '.',
  '...',
];
