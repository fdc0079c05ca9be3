/**
 * Small servers and clients to run inside a network namespace, each as a process of its own:
 *
 *   node namespace-programs.js NAME '{"host":"198.18.1.1","port":8080}'
 *
 * A client prints one line of JSON when it is done; a server runs until it is killed.
 */
import { createHash, type Hash, randomBytes } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer as createHttpServer } from 'node:http';
import net from 'node:net';
import { setTimeout as watchdog } from 'node:timers';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { endedCleanly } from '../../src/engine/portable/reset.ts';

export interface ProgramArguments {
  readonly host: string;
  readonly port: number;
  /** Bytes to send. */
  readonly bytes?: number;
  readonly connections?: number;
  readonly hex?: string;
  /** How long to go on. */
  readonly ms?: number;
  /** Where a client is itself. */
  readonly from?: string;
  readonly fromPort?: number;
  /** Of those that ask at two ports. */
  readonly secondPort?: number;
}

/** What a transfer looked like from one end: both hashes, and how it ended. */
export interface Transfer {
  readonly sent: string;
  readonly received: string;
  readonly ending: string;
  /** Whom the server had for its peer. */
  readonly peer?: string;
}

/** Whom a server had for its peer, and the client's own port; without an answer the peer is '' and the port 0. */
export interface Seen {
  readonly peer: string;
  readonly port: number;
  readonly clientPort: number;
  readonly ending: string;
  /** What the server was told first, in hexadecimal; '' where it does not say. */
  readonly told: string;
}

/** One TCP connection's answer. */
export interface Answer {
  readonly text: string;
  readonly ending: string;
}

export interface ManyAnswers {
  /** How many ended well with a whole answer. */
  readonly answered: number;
  /** How the others ended. */
  readonly failures: readonly string[];
}

/** How often each host answered, by its name, and how often each failure came instead. */
export type Outcomes = Readonly<Record<string, number>>;

/** A datagram's answer and where it came from. */
export interface Echo {
  readonly text: string;
  readonly from: string;
}

export const programFile: string = fileURLToPath(import.meta.url);

const MiB = 1024 * 1024;
/** What every link takes whole. */
const datagramBytes = 1200;
const atOnce = 20;
const answerMs = 5000;
/** A datagram that was not answered by then will not be. */
const silenceMs = 1500;

const programs = {
  /** HTTP on one address of one family; an answer says who is asked by whom. */
  web: async ({ host, port }) => {
    const server = createHttpServer({ keepAlive: false }, ({ socket }, response) => {
      response.setHeader('connection', 'close');
      response.end(`${socket.localAddress} was asked by ${socket.remoteAddress}\n`);
    });
    server.listen({ host, port, ipv6Only: true });
    await once(server, 'close');
  },

  /** Sends half at once, and the rest only when the client has said all it had to say. */
  transferServer: async ({ host, port, bytes = 0 }) => {
    const server = net.createServer({ allowHalfOpen: true }, async (socket) => {
      const received = receive(socket);
      const hash = createHash('sha256');
      await send(socket, bytes / 2, hash);
      const { hash: got, ending } = await received;
      await send(socket, bytes / 2, hash);
      socket.end();
      print({ sent: hash.digest('hex'), received: got, ending, peer: socket.remoteAddress ?? '' });
    });
    server.listen({ host, port, ipv6Only: true });
    await once(server, 'close');
  },

  transferClient: async ({ host, port, bytes = 0 }) => {
    const socket = net.connect({ host, port, allowHalfOpen: true });
    const hash = createHash('sha256');
    const answer = receive(socket);
    await send(socket, bytes, hash);
    socket.end();
    const { hash: received, ending } = await answer;
    print({ sent: hash.digest('hex'), received, ending });
  },

  /** Answers each datagram with one of its own, until it has had these bytes. */
  udpTransferServer: async ({ host, port, bytes = 0 }) => {
    const socket = createSocket({ type: udpType(host), ipv6Only: host.includes(':') });
    const [sent, received] = [createHash('sha256'), createHash('sha256')];
    let left = bytes;
    socket.on('message', (data, from) => {
      received.update(data);
      const answer = randomBytes(data.length);
      sent.update(answer);
      socket.send(answer, from.port, from.address);
      left -= data.length;
      if (left > 0) return;
      print({
        sent: sent.digest('hex'),
        received: received.digest('hex'),
        ending: 'end',
        peer: from.address,
      });
    });
    socket.bind(port, host);
    await once(socket, 'close');
  },

  /** A few datagrams at a time are under way, so that no buffer is ever full: one that is missing is lost. */
  udpTransferClient: async ({ host, port, bytes = 0 }) => {
    const socket = createSocket(udpType(host));
    const [sent, received] = [createHash('sha256'), createHash('sha256')];
    let [toSend, toHear] = [bytes, bytes];
    const sendOne = () => {
      const datagram = randomBytes(Math.min(toSend, datagramBytes));
      toSend -= datagram.length;
      sent.update(datagram);
      if (datagram.length > 0) socket.send(datagram, port, host);
    };
    const heard = new Promise<string>((resolve) => {
      const silence = watchdog(() => resolve(`silence, ${toHear} bytes are missing`), answerMs).unref();
      socket.on('message', (data) => {
        silence.refresh();
        received.update(data);
        toHear -= data.length;
        if (toHear <= 0) resolve('end');
        else sendOne();
      });
    });
    for (let i = 0; i < atOnce; i++) sendOne();
    const ending = await heard;
    socket.close();
    print({ sent: sent.digest('hex'), received: received.digest('hex'), ending });
  },

  /** Many short connections, a few at a time. */
  many: async ({ host, port, connections = 0 }) => {
    const failures: string[] = [];
    let left = connections;
    const worker = async () => {
      while (left-- > 0) {
        const { text, ending } = await ask(host, port, 'GET / HTTP/1.0\r\n\r\n');
        if (ending !== 'end' || !/was asked by .+\n$/.test(text)) failures.push(ending);
      }
    };
    await Promise.all(Array.from({ length: atOnce }, worker));
    print({ answered: connections - failures.length, failures });
  },

  /** One connection after the other, as long as it is told. */
  keepAsking: async ({ host, port, ms = 0 }) => {
    const outcomes = new Map<string, number>();
    const deadline = performance.now() + ms;
    while (performance.now() < deadline) {
      const { text, ending } = await ask(host, port, 'GET / HTTP/1.0\r\n\r\n');
      const outcome = /(\S+) was asked by /.exec(text)?.[1] ?? ending;
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      if (ending === 'ECONNREFUSED') await setTimeout(1);
    }
    print(Object.fromEntries(outcomes));
  },

  /** The same for as long as it is told. */
  steady: async ({ host, port, ms = 0 }) => {
    const failures: string[] = [];
    let answered = 0;
    const until = performance.now() + ms;
    const worker = async () => {
      while (performance.now() < until) {
        const { text, ending } = await ask(host, port, 'GET / HTTP/1.0\r\n\r\n');
        if (ending === 'end' && /was asked by .+\n$/.test(text)) answered++;
        else failures.push(ending);
        await setTimeout(5);
      }
    };
    await Promise.all(Array.from({ length: atOnce }, worker));
    print({ answered, failures });
  },

  /** Half an answer, then a reset. */
  cutServer: async ({ host, port }) => {
    const server = net.createServer((socket) => {
      socket.on('error', () => {});
      socket.once('data', () => socket.write('half of', () => socket.resetAndDestroy()));
    });
    server.listen({ host, port, ipv6Only: true });
    await once(server, 'close');
  },

  /** Sends bytes and prints the answer. */
  say: async ({ host, port, hex = '' }) => {
    print(await ask(host, port, Buffer.from(hex, 'hex')));
  },

  /** Says who is asking, and ends when the client does. */
  who: async ({ host, port }) => {
    const server = net.createServer({ allowHalfOpen: true }, (socket) => {
      socket.on('error', () => {}).on('end', () => socket.end());
      socket.resume().write(`${socket.remoteAddress} ${socket.remotePort}`);
    });
    server.listen({ host, port, ipv6Only: true });
    await once(server, 'close');
  },

  udpWho: async ({ host, port }) => {
    const socket = createSocket({ type: udpType(host), ipv6Only: host.includes(':') });
    socket.on('message', (_, { address, port: from }) => socket.send(`${address} ${from}`, from, address));
    socket.bind(port, host);
    await once(socket, 'close');
  },

  /** Says also what it was told, up to the client's hello: a header may come in a packet of its own. */
  whoSaysWhat: async ({ host, port }) => {
    const server = net.createServer({ allowHalfOpen: true }, (socket) => {
      let told = Buffer.alloc(0);
      socket.on('error', () => {}).on('end', () => socket.end());
      socket.on('data', (chunk) => {
        told = Buffer.concat([told, chunk]);
        if (told.toString('latin1').endsWith('hello'))
          socket.write(`${socket.remoteAddress} ${socket.remotePort} ${told.toString('hex')}`);
      });
    });
    server.listen({ host, port, ipv6Only: true });
    await once(server, 'close');
  },

  udpWhoSaysWhat: async ({ host, port }) => {
    const socket = createSocket({ type: udpType(host), ipv6Only: host.includes(':') });
    socket.on('message', (data, { address, port: from }) =>
      socket.send(`${address} ${from} ${data.toString('hex')}`, from, address),
    );
    socket.bind(port, host);
    await once(socket, 'close');
  },

  whoAmI: async ({ host, port, from, fromPort }) => {
    const own = {
      ...(from === undefined ? {} : { localAddress: from }),
      ...(fromPort === undefined ? {} : { localPort: fromPort }),
    };
    const socket = net.connect({ host, port, ...own, allowHalfOpen: true });
    let text = '';
    let clientPort = 0;
    socket.on('connect', () => (clientPort = socket.localPort ?? 0));
    socket.write('hello');
    socket.on('data', (chunk) => {
      text += chunk;
      socket.end();
    });
    const ending = await endingOf(socket);
    socket.destroy();
    print(seen(text, clientPort, ending));
  },

  /** The second connection from the same port while the first is there. */
  whoAmITwice: async ({ host, port, fromPort = 0, secondPort = 0 }) => {
    const answers: Seen[] = [];
    for (const at of [port, secondPort]) {
      const socket = net.connect({ host, port: at, localPort: fromPort });
      const [chunk] = await once(socket, 'data');
      answers.push(seen(String(chunk), socket.localPort ?? 0, 'held'));
    }
    print(answers);
    process.exit();
  },

  /** One socket, and a flow for each port it sends to. */
  udpWhoAmITwice: async ({ host, port, fromPort = 0, secondPort = 0 }) => {
    const socket = createSocket(udpType(host)).bind(fromPort);
    await once(socket, 'listening');
    const answers: Seen[] = [];
    for (const at of [port, secondPort]) {
      socket.send('hello', at, host);
      const [answer] = await once(socket, 'message', { signal: AbortSignal.timeout(answerMs) });
      answers.push(seen(String(answer), fromPort, 'answer'));
    }
    print(answers);
    socket.close();
  },

  udpWhoAmI: async ({ host, port, from, fromPort }) => {
    const socket = createSocket(udpType(host));
    socket.bind(fromPort ?? 0, from);
    await once(socket, 'listening');
    const clientPort = socket.address().port;
    socket.send('hello', port, host);
    const signal = AbortSignal.timeout(silenceMs);
    const [answer] = await once(socket, 'message', { signal }).catch(() => ['']);
    print(seen(String(answer), clientPort, answer === '' ? 'silence' : 'answer'));
    socket.close();
  },

  udpEcho: async ({ host, port }) => {
    const socket = createSocket({ type: udpType(host), ipv6Only: host.includes(':') });
    socket.on('message', (data, from) => socket.send(`echo ${data}`, from.port, from.address));
    socket.bind(port, host);
    await once(socket, 'close');
  },

  /** Not connected, so that an answer from another address is seen and not dropped. */
  udpAsk: async ({ host, port }) => {
    const socket = createSocket(udpType(host));
    socket.send('hello', port, host);
    const [data, from] = await once(socket, 'message', { signal: AbortSignal.timeout(answerMs) });
    print({ text: String(data), from: from.address });
    socket.close();
  },
} satisfies Record<string, (args: ProgramArguments) => Promise<void>>;

export type ProgramName = keyof typeof programs;

function seen(answer: string, clientPort: number, ending: string): Seen {
  const [peer = '', port = '0', told = ''] = answer.split(' ');
  return { peer, port: Number(port), clientPort, ending, told };
}

function print(result: Transfer | Answer | ManyAnswers | Outcomes | Echo | Seen | readonly Seen[]): void {
  process.stdout.write(`${JSON.stringify(result)}\n`);
}

function udpType(host: string): 'udp4' | 'udp6' {
  return host.includes(':') ? 'udp6' : 'udp4';
}

async function send(socket: net.Socket, bytes: number, hash: Hash): Promise<void> {
  const block = randomBytes(MiB + 13);
  for (let left = bytes; left > 0; left -= block.length) {
    const chunk = block.subarray(0, Math.min(left, block.length));
    hash.update(chunk);
    if (!socket.write(chunk)) await once(socket, 'drain');
  }
}

async function receive(socket: net.Socket): Promise<{ hash: string; ending: string }> {
  const hash = createHash('sha256');
  // Not `for await`: that destroys the socket at the end of one direction.
  socket.on('data', (chunk) => hash.update(chunk));
  const ending = await endingOf(socket);
  return { hash: hash.digest('hex'), ending };
}

async function ask(host: string, port: number, question: string | Buffer): Promise<Answer> {
  const socket = net.connect({ host, port, allowHalfOpen: true });
  const chunks: Buffer[] = [];
  socket.on('data', (chunk) => chunks.push(chunk));
  socket.write(question);
  const ending = await endingOf(socket);
  socket.destroy();
  return { text: Buffer.concat(chunks).toString('latin1'), ending };
}

/** 'end' for FIN, else the errno; asked of the kernel, because Node 20 takes some resets for ends. */
function endingOf(socket: net.Socket): Promise<string> {
  return new Promise((resolve) => {
    socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? 'error'));
    socket.on('end', () => resolve(endedCleanly(socket) ? 'end' : 'ECONNRESET'));
    socket.on('close', () => resolve('close'));
    socket.setTimeout(20_000, () => resolve('silence'));
  });
}

function isProgram(name: string | undefined): name is ProgramName {
  return name !== undefined && name in programs;
}

const [, file, name, args] = process.argv;
if (file === programFile && isProgram(name) && args !== undefined) await programs[name](JSON.parse(args));
