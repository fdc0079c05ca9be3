/**
 * One error class, one table of codes. Anything dualport refuses on purpose (a flag, a file, a port that is
 * taken) is a DualportError; its message says what was found, what is allowed and what to do, and its code
 * names the page in docs/errors.md and the exit status. Codes are never reused for another meaning.
 */

/** Exit statuses: sysexits.h where one fits, and what systemd's RestartPreventExitStatus= is set to. */
export const exitStatus = {
  done: 0,
  failure: 1,
  usage: 2,
  portInUse: 69,
  temporary: 75,
  privilege: 77,
  configuration: 78,
} as const;

/** Every code, the exit status it ends the program with, and what it means in a few words. */
export const errorCodes = {
  USAGE: { exit: exitStatus.usage, means: 'the command line or an environment variable is not valid' },
  PORT_SPEC: { exit: exitStatus.usage, means: 'a port is not in the grammar of docker run -p' },
  ADDRESS: { exit: exitStatus.usage, means: 'a text is not an IP address, a CIDR prefix or a host name' },
  ENGINE: { exit: exitStatus.configuration, means: 'the engine that was asked for cannot run here' },
  PORT_CONFLICT: { exit: exitStatus.configuration, means: 'two rules publish the same port' },
  SELF_CONNECT: { exit: exitStatus.configuration, means: 'a rule would connect to its own listener' },
  CONFIG_FILE: { exit: exitStatus.configuration, means: 'the configuration file cannot be read' },
  CONFIG_SYNTAX: { exit: exitStatus.configuration, means: 'the configuration file is not valid YAML' },
  CONFIG_VALUE: { exit: exitStatus.configuration, means: 'a value in the configuration file is not allowed' },
  CONFIG_KEY: { exit: exitStatus.configuration, means: 'a key in the configuration file is not known' },
  ADDRESS_IN_USE: { exit: exitStatus.portInUse, means: 'another program holds the port' },
  ADDRESS_NOT_AVAILABLE: { exit: exitStatus.temporary, means: 'the host does not have the address' },
  FAMILY_NOT_AVAILABLE: { exit: exitStatus.configuration, means: 'the host has no IPv6, or no IPv4' },
  PRIVILEGE: { exit: exitStatus.privilege, means: 'a port or an option needs a privilege the process lacks' },
  LISTEN: { exit: exitStatus.failure, means: 'a listener cannot be opened for another reason' },
  DOCKER: { exit: exitStatus.temporary, means: 'the Docker Engine cannot be asked' },
  DAEMON_JSON: {
    exit: exitStatus.configuration,
    means: 'the daemon.json of dockerd cannot be changed as asked',
  },
  STATE: { exit: exitStatus.failure, means: 'the pseudo addresses that are kept cannot be read' },
  SETUP: { exit: exitStatus.failure, means: 'a rule or route of the kernel cannot be made or removed' },
  SETUP_TOOL: {
    exit: exitStatus.configuration,
    means: 'a program that changes rules and routes is not installed',
  },
  SETUP_FOREIGN: {
    exit: exitStatus.configuration,
    means: "somebody else has a rule, route or table in dualport's place",
  },
  SETUP_BUSY: { exit: exitStatus.temporary, means: 'another dualport has the rules and routes of this host' },
  ADMIN: { exit: exitStatus.failure, means: 'the admin address does not answer' },
} as const;

export type ErrorCode = keyof typeof errorCodes;

export class DualportError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'DualportError';
    this.code = code;
  }

  get exitStatus(): number {
    return errorCodes[this.code].exit;
  }
}

/** The errno name of a Node system error, or undefined for anything else. */
export function errnoOf(error: unknown): string | undefined {
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') return error.code;
  return undefined;
}

/** What a thrown value has to say, for a log line or the end of a message. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/**
 * Turns the errno of a failed bind or listen into advice.
 *
 * @param protocol 'tcp' or 'udp'
 * @param address the socket address as a user writes it, e.g. `[::]:80`
 * @param lowPort the first port that needs no privilege (net.ipv4.ip_unprivileged_port_start)
 */
export function listenError(
  error: unknown,
  protocol: string,
  address: string,
  lowPort: number,
): DualportError {
  if (error instanceof DualportError) return error;
  const errno = errnoOf(error);
  const where = `${protocol} ${address}`;
  const [, zone] = /%([^\]]+)\]/.exec(address) ?? [];
  const advice =
    zone === undefined ? listenAdvice[errno ?? ''] : (zoneAdvice[errno ?? ''] ?? listenAdvice[errno ?? '']);
  if (advice === undefined) {
    return new DualportError('LISTEN', `cannot listen on ${where}: ${messageOf(error)}`, { cause: error });
  }
  return new DualportError(advice.code, `cannot listen on ${where}: ${advice.text(lowPort, zone)}`, {
    cause: error,
  });
}

const noIpv6 =
  'this host has no IPv6; switch it on (sysctl net.ipv6.conf.all.disable_ipv6=0) or publish on an IPv4 address';

type Advice = { code: ErrorCode; text: (lowPort: number, zone?: string) => string } | undefined;

/** An interface that is not there has no number, which is 0 to the kernel, and so has one without such addresses. */
const noInterface: Advice = {
  code: 'ADDRESS_NOT_AVAILABLE',
  text: (_, zone) =>
    `this host has no interface "${zone}" with a link-local address (see: ip -6 address); name one that has this one`,
};
const zoneAdvice: Record<string, Advice> = { EINVAL: noInterface, ENODEV: noInterface };

const listenAdvice: Record<string, Advice> = {
  EADDRINUSE: {
    code: 'ADDRESS_IN_USE',
    text: () => 'another program holds this port (see: ss -lntup); stop it or publish another port',
  },
  EACCES: {
    code: 'PRIVILEGE',
    text: (lowPort) =>
      `ports below ${lowPort} need the capability CAP_NET_BIND_SERVICE; grant it, lower the sysctl ` +
      'net.ipv4.ip_unprivileged_port_start, or publish a higher port',
  },
  EADDRNOTAVAIL: {
    code: 'ADDRESS_NOT_AVAILABLE',
    text: () =>
      'no interface of this host has this address (see: ip address); publish on one it has, or allow it ' +
      'with the sysctl net.ipv4.ip_nonlocal_bind / net.ipv6.ip_nonlocal_bind',
  },
  EMFILE: {
    code: 'LISTEN',
    text: () =>
      'the process has used up the files it may open; raise the limit (ulimit -n, LimitNOFILE= in a systemd unit) ' +
      'or publish fewer ports',
  },
  EAFNOSUPPORT: { code: 'FAMILY_NOT_AVAILABLE', text: () => noIpv6 },
  EINVAL: {
    code: 'ADDRESS_NOT_AVAILABLE',
    text: () => 'the kernel refuses this address; a link-local one needs its interface, as in [fe80::1%eth0]',
  },
};

/** An explicit IPv6 address on a host whose IPv6 is switched off. */
export function noIpv6Error(protocol: string, address: string): DualportError {
  return new DualportError('FAMILY_NOT_AVAILABLE', `cannot listen on ${protocol} ${address}: ${noIpv6}`);
}
