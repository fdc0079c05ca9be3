/** One connection over loopback that says all it has to say at once, and listens until the other side ends. */
import { connect } from 'node:net';

export interface Exchange {
  /** Everything that came; nothing when the connection was refused or reset. */
  readonly answer: string;
  /** The port of this side. */
  readonly own: number;
}

export function exchanged(port: number, bytes: Buffer): Promise<Exchange> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    let answer = '';
    let own = 0;
    const done = () => resolve({ answer, own });
    socket.on('connect', () => {
      own = socket.localPort ?? 0;
    });
    socket.on('data', (data) => {
      answer += data.toString('latin1');
    });
    // With a reset, so that tens of thousands of connections leave no ports in TIME_WAIT.
    socket.on('end', () => socket.resetAndDestroy());
    socket.on('error', () => {});
    socket.on('close', done);
    socket.end(bytes);
  });
}
