/** No relay: the client reaches the container's own address. Nothing that relays can be faster. */
import type { Subject } from './subject.ts';

export const direct: Subject = {
  name: 'direct',
  title: 'direct',
  kind: 'bound',
  settings: "no relay; the program listens on the client's family, so for 6to4 this is 6to6",
  version: () => '',
  start: async () => ({ processes: [], entrance: ({ direct }) => direct }),
};
