/** Every row, in the order of its groups. */
import type { Row } from '../row.ts';
import { dockerRows } from './docker.ts';
import { headerRows } from './header.ts';
import { lifeRows } from './life.ts';
import { listeningRows } from './listening.ts';
import { stateRows } from './state.ts';
import { tcpRows } from './tcp.ts';
import { udpRows } from './udp.ts';

export const rows: readonly Row[] = [
  ...tcpRows,
  ...headerRows,
  ...udpRows,
  ...listeningRows,
  ...lifeRows,
  ...dockerRows,
  ...stateRows,
];
