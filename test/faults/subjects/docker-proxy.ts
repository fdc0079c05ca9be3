/** Docker's own userland proxy: a process for each published port and family. It has no settings. */
import { packagedVersion } from '../../../bench/subjects/installed.ts';
import { hostsOf, type Subject } from '../subject.ts';

const file = '/usr/sbin/docker-proxy';

export const dockerProxy: Subject = {
  name: 'docker-proxy',
  title: 'docker-proxy',
  workers: 0,
  settings: 'has none',
  version: () => packagedVersion('docker.io', file),
  cannot: ({ publish, accept, announce, admin }) => {
    if (accept !== undefined || announce !== undefined) return 'knows no PROXY protocol';
    if (publish.some(({ allow, deny }) => (allow ?? deny) !== undefined)) return 'has no access rules';
    return admin === undefined ? undefined : 'shows no state';
  },
  commands: (_folder, { publish }) =>
    publish.flatMap((publication) =>
      hostsOf(publication).map((host) => {
        const { protocol, port, to } = publication;
        const words = ['-proto', protocol, '-host-ip', host, '-host-port', `${port}`];
        const target = ['-container-ip', to.host, '-container-port', `${to.port}`];
        // Descriptor 3 is where dockerd reads why it could not start.
        return ['sh', '-c', 'exec "$@" 3>&2', 'sh', file, ...words, ...target];
      }),
    ),
  file: undefined,
  signals: { drain: 'SIGTERM' },
};
