/**
 * From what was seen of an attempt to what is to blame, with the remedy. Pure; the questions stand in the order in
 * which a connection and its answer meet what can stop them.
 */
import type { Way } from '../way.ts';
import type { Outcome } from './attempt.ts';
import type { Trace } from './trace.ts';

export type Cause =
  | 'upstream'
  | 'engine'
  | 'privilege'
  | 'missing-route'
  | 'on-link'
  | 'output'
  | 'masquerade'
  | 'no-answer'
  | 'missing-rule'
  | 'overruled'
  | 'firewall'
  | 'src_valid_mark'
  | 'rp_filter'
  | 'interface'
  | 'input'
  | 'unknown';

export type Verdict =
  | { readonly result: 'works'; readonly text: string }
  | { readonly result: 'untold'; readonly text: string }
  | { readonly result: 'fails'; readonly cause: Cause; readonly text: string; readonly remedy: string };

export interface Seen {
  readonly protocol: 'tcp' | 'udp';
  /** As this host itself. */
  readonly plain: Outcome;
  /** As the client. */
  readonly spoofed: Outcome;
  readonly way: Way;
  /** How the host reaches the client. */
  readonly clientWay: Way;
  /** The client's address is one of the range of pseudo addresses. */
  readonly pseudo: boolean;
  /** Undefined where nothing could be counted. */
  readonly trace: Trace | undefined;
  /** Where the kernel leads the answer; undefined where it could not be asked. */
  readonly decision: Decision | undefined;
  /** Commands of `dualport transparent up` that are not in force; undefined where that could not be read. */
  readonly missing: readonly string[] | undefined;
  readonly sysctl: { readonly rpFilter: number; readonly srcValidMark: boolean };
}

/** To this host, to somebody else, refused for its source, or to nobody. */
export type Decision = 'here' | 'elsewhere' | 'bad-source' | 'nowhere';

export function blame(seen: Seen): Verdict {
  return works(seen) ?? impossible(seen) ?? onTheWay(seen) ?? onTheWayBack(seen) ?? neither(seen);
}

const fails = (cause: Cause, text: string, remedy: string): Verdict => ({
  result: 'fails',
  cause,
  text,
  remedy,
});

const up = 'run dualport transparent up';

function works({ plain, spoofed, trace, missing }: Seen): Verdict | undefined {
  if (!isReached(spoofed)) return undefined;
  // Answered, although nothing has left from the client's address.
  if (trace !== undefined && trace.sent > 0 && trace.left === 0) return masquerade();
  if (spoofed.kind === 'refused' && plain.kind === 'answered') {
    return fails(
      'upstream',
      'the upstream answers this host, and refuses the client',
      'look for an access list of the program, or a firewall that refuses',
    );
  }
  const byHand = missing?.length ? ', by other rules than those of dualport transparent up' : '';
  const nobody = spoofed.kind === 'refused' ? '; nobody listens there, and the refusal finds back' : '';
  return { result: 'works', text: `answers find back${byHand}${nobody}` };
}

function isReached({ kind }: Outcome): boolean {
  return kind === 'answered' || kind === 'refused';
}

function masquerade(): Verdict {
  return fails(
    'masquerade',
    "the client's address was replaced on the way out, so the upstream sees this host",
    'a rule of NAT (masquerade or snat) concerns what goes to the upstream: have it leave out connections from other ' +
      "addresses than the network's own (see: nft list ruleset, iptables -t nat -S POSTROUTING)",
  );
}

/** No attempt could be made. */
function impossible({ spoofed, pseudo }: Seen): Verdict | undefined {
  if (spoofed.kind === 'impossible') {
    const text = `no socket can have another address here: ${spoofed.reason}`;
    return fails('engine', text, 'install dualport with its native part');
  }
  if (spoofed.kind !== 'failed') return undefined;
  if (spoofed.errno === 'EPERM') {
    return fails(
      'privilege',
      'this process may not give a socket the address of somebody else',
      'give it CAP_NET_RAW or CAP_NET_ADMIN (a container: cap_add: [NET_RAW]; a unit: AmbientCapabilities=CAP_NET_RAW)',
    );
  }
  if (spoofed.errno === 'EADDRNOTAVAIL' && pseudo) {
    return fails('missing-route', 'pseudo addresses are not addresses of this host', up);
  }
  return undefined;
}

function onTheWay({ spoofed, way, clientWay, pseudo, trace }: Seen): Verdict | undefined {
  const beside = pseudo ? undefined : clientBeside(way, clientWay);
  if (beside !== undefined) return beside;
  if (trace === undefined || trace.left > 0) return undefined;
  return trace.rewritten > 0 ? masquerade() : stopped(spoofed);
}

function clientBeside(way: Way, clientWay: Way): Verdict | undefined {
  if (way.kind !== 'interface' || clientWay.kind !== 'interface') return undefined;
  if (way.name !== clientWay.name || clientWay.gateway !== undefined) return undefined;
  return fails(
    'on-link',
    `the client is on ${way.name}, too: the upstream answers it directly, and past this host`,
    'nothing: dualport connects such clients plainly; give --from the address of another client',
  );
}

function stopped(spoofed: Outcome): Verdict {
  const how = spoofed.kind === 'failed' ? ` (${spoofed.errno})` : '';
  return fails(
    'output',
    `what was sent as the client has not left this host${how}`,
    'look for a firewall on what this host sends (chains of the hooks output and postrouting), or for a missing route',
  );
}

/** What the packets that came back say; they come also where the program does not answer this host. */
function onTheWayBack(seen: Seen): Verdict | undefined {
  if (seen.trace === undefined) return undefined;
  if (seen.way.kind === 'local') return localAnswer(seen, seen.trace);
  if (seen.trace.back === 0) return isReached(seen.plain) ? noAnswer(seen.trace) : undefined;
  return passingAnswer(seen, seen.trace);
}

/** On this host the answer's route is chosen before it is sent. */
function localAnswer(seen: Seen, trace: Trace): Verdict | undefined {
  if (trace.strayed > 0)
    return notHere(seen, 'the program listens on a wildcard address and answers from another one');
  if (trace.answered > 0 && trace.back === 0)
    return notHere(seen, 'answers of programs on this host go to the client');
  return trace.reached > 0 && trace.delivered === 0 ? inputDrops() : undefined;
}

function passingAnswer(seen: Seen, trace: Trace): Verdict | undefined {
  if (trace.kept === 0) return firewall(seen);
  if (trace.delivered > 0) return undefined;
  if (trace.reached > 0) return inputDrops();
  const expected = seen.way.kind === 'interface' ? seen.way.name : '';
  if (!trace.interfaces.includes(expected)) return otherInterface(seen, trace, expected);
  if (trace.marked === 0 && !seen.pseudo) return notHere(seen, 'answers are not marked');
  if (seen.decision === 'bad-source') return badSource(seen, trace);
  if (seen.decision === 'here') return undefined;
  return notHere(
    seen,
    seen.pseudo
      ? 'pseudo addresses are not addresses of this host'
      : 'what is marked is not led to this host',
  );
}

/** The rule or the route that would bring the answer here; or, where all of ours are in force, somebody else's. */
function notHere({ pseudo, missing }: Seen, text: string): Verdict {
  if (missing?.length === 0) return overruled(text);
  const absent = missing?.length ? ` (not in force: ${missing.join('; ')})` : '';
  return fails(pseudo ? 'missing-route' : 'missing-rule', text + absent, up);
}

function overruled(text: string): Verdict {
  return fails(
    'overruled',
    `${text}, though all that dualport transparent up makes is in force`,
    'look for a rule that leads there before those of dualport (ip rule show), for a chain that changes the mark (nft list ' +
      'ruleset), and for another route to the same addresses; remove it, or have dualport before it with ' +
      '--transparent-priority, or take another bit with --transparent-mark',
  );
}

function noAnswer({ strayed }: Trace): Verdict {
  if (strayed > 0) {
    return fails(
      'no-answer',
      'the upstream answers the client from another address than it was called at',
      'have its program listen on that address and not on a wildcard, or its route to clients leave from there',
    );
  }
  return fails(
    'no-answer',
    'the upstream was called as the client, and nothing has come back to this host',
    "have the upstream's default route lead to this host, and its own firewall and rp_filter let the client in; a " +
      'proxy in a container of its own cannot be transparent for its neighbours',
  );
}

/** Such chains look up the way to the answer's source as the kernel does, and with the mark. */
function firewall({ missing }: Seen): Verdict {
  const leaveOut =
    'have it leave out what has the mark: a check of the reverse path is the usual one (firewalld: IPv6_rpfilter; nft: ' +
    'fib saddr . mark . iif); see nft list ruleset';
  return fails(
    'firewall',
    'the answer has come back, and a chain of a firewall in the hook prerouting has dropped it',
    missing?.length
      ? `${up}, whose rules name their interface, as such a chain needs it; else ${leaveOut}`
      : leaveOut,
  );
}

function otherInterface({ sysctl }: Seen, { interfaces }: Trace, expected: string): Verdict {
  const others = interfaces.join(', ');
  const text = `the upstream is reached over ${expected}, and its answers come back over ${others}`;
  const remedy = `have both take one way, or say --transparent-interface ${others}`;
  if (sysctl.rpFilter !== 1) return fails('interface', text, remedy);
  const loose = interfaces.map((name) => `net.ipv4.conf.${name}.rp_filter=2`).join(' ');
  return fails('rp_filter', `${text}, where rp_filter=1 drops them`, `${remedy} and set sysctl ${loose}`);
}

/** The kernel looks up the way to the answer's source; with src_valid_mark the mark takes part in that. */
function badSource({ sysctl }: Seen, trace: Trace): Verdict {
  if (sysctl.srcValidMark && trace.marked > 0) {
    return fails(
      'src_valid_mark',
      'the answer is dropped for its source: src_valid_mark=1 has the way to it looked up with the mark, and a rule for ' +
        'that mark without an interface (iif) leads to this host',
      `${up}, whose rules name their interface, and remove rules for the same mark that do not`,
    );
  }
  return fails(
    'rp_filter',
    `the answer is dropped for its source (rp_filter=${sysctl.rpFilter}): this host would send to it by another interface`,
    'mend the routes to the upstream, or set sysctl net.ipv4.conf.<interface>.rp_filter=2',
  );
}

function inputDrops(): Verdict {
  return fails(
    'input',
    'the answer has been led to this host, and its firewall drops it (hook input)',
    'accept what is established (nft: ct state established,related accept), as for every connection this host makes',
  );
}

/** No packet says anything. */
function neither(seen: Seen): Verdict {
  const { plain, spoofed } = seen;
  if (!isReached(plain)) return unreached(seen);
  if (seen.missing?.length) return notHere(seen, 'answers to the client do not come here');
  const how = spoofed.kind === 'failed' ? spoofed.errno : 'no answer';
  return fails(
    'unknown',
    `the upstream answers this host and not the client (${how}); where the answer is lost cannot be seen`,
    'run this check as root, with nft installed',
  );
}

/** A UDP program may be there and say nothing to an empty datagram; a TCP program would have accepted. */
function unreached(seen: Seen): Verdict {
  const { plain, protocol, decision, missing } = seen;
  if (protocol === 'tcp' || plain.kind === 'failed') {
    const how = plain.kind === 'failed' ? plain.errno : 'no answer';
    return fails(
      'upstream',
      `the upstream cannot be reached at all (${how})`,
      'see whether it runs and has this address',
    );
  }
  const text = 'the program does not answer an empty datagram';
  if (missing?.length) return notHere(seen, text);
  if (decision === 'elsewhere' || decision === 'nowhere')
    return notHere(seen, `${text}, and an answer would not come here`);
  if (decision === 'bad-source')
    return fails('rp_filter', `${text}, and an answer would be dropped for its source`, up);
  const would = decision === 'here' ? 'its answers would find back' : 'no rule is missing';
  return { result: 'untold', text: `${text}; ${would}` };
}
