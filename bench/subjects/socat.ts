/** socat, which forks a process for each connection and for each UDP peer. */
import { versionOf } from './installed.ts';
import { bracketed, type Publication, type Subject, startEach } from './subject.ts';

export const socat: Subject = makeSocat('socat', 'socat', 'defaults (blocks of 8 KiB)', [], '');

export const socat256k: Subject = makeSocat(
  'socat-256k',
  'socat, 256 KiB',
  'tuned: blocks of 256 KiB, nodelay',
  ['-b', '262144'],
  ',nodelay',
);

function makeSocat(
  name: string,
  title: string,
  settings: string,
  flags: readonly string[],
  tcpOptions: string,
): Subject {
  return {
    name,
    title,
    kind: 'peer',
    settings,
    mostIdle: 500,
    version: () => versionOf(['socat', '-V'], /socat version (\S+)/, 'socat'),
    start: (stage, publications) =>
      startEach(stage, publications, (publication) => [
        'socat',
        ...flags,
        ...addresses(publication, tcpOptions),
      ]),
  };
}

function addresses({ protocol, host, container }: Publication, tcpOptions: string): readonly string[] {
  const kind = `${protocol.toUpperCase()}${host.address.includes(':') ? '6' : '4'}`;
  const to = `${protocol.toUpperCase()}:${bracketed(container.address)}:${container.port}`;
  const options = protocol === 'tcp' ? `,reuseaddr,backlog=4096${tcpOptions}` : '';
  const from = `${kind}-LISTEN:${host.port},bind=${bracketed(host.address)},fork${options}`;
  // Without a limit a process would stay for ever behind each client that ever sent a datagram.
  return protocol === 'tcp' ? [from, `${to}${tcpOptions}`] : ['-T', '10', from, to];
}
