/**
 * Small requests by wrk over the echo server: as many as go on connections that stay (requests), or one on
 * each connection (connections). wrk is a closed loop, it waits for an answer before it asks again, so its
 * percentiles flatter whatever stalls; open-loop.ts is the workload for latency.
 */
import { fileURLToPath } from 'node:url';
import { bracketed } from '../subjects/subject.ts';
import { cpuMetrics, type Measurement, type Spent, spending, type Workload } from './workload.ts';

const script = fileURLToPath(new URL('../../../bench/load/wrk-echo.lua', import.meta.url));

export function requests(connections: number): Workload {
  return {
    name: `requests-${connections}`,
    title: `Requests of 64 bytes on ${connections === 1 ? '1 connection' : `${connections} connections`}`,
    method: 'wrk, one thread, closed loop: 64 bytes to the echo server and back, as often as goes.',
    group: 'requests',
    protocol: 'tcp',
    tool: 'wrk',
    metrics: [
      { name: 'rate', title: 'Requests', unit: '1/s', better: 'higher' },
      { name: 'cpuPerRequest', ...cpuMetrics.system('µs/request') },
      { name: 'subjectCpuPerRequest', ...cpuMetrics.subject('µs/request') },
      { name: 'p50', title: 'Median latency', unit: 'µs', better: 'lower' },
      { name: 'p99', title: '99 % latency', unit: 'µs', better: 'lower' },
      { name: 'p99_9', title: '99.9 % latency', unit: 'µs', better: 'lower' },
    ],
    expected: wholeSeconds,
    measure: async (measurement) => {
      const { spent, ...seen } = await wrk(measurement, 'keep-alive', connections);
      if (seen.failures > 0) throw new Error(`${seen.failures} requests failed`);
      return {
        values: {
          rate: seen.requests / seen.seconds,
          cpuPerRequest: (spent.system * 1e6) / seen.requests,
          subjectCpuPerRequest: (spent.subject * 1e6) / seen.requests,
          p50: at(seen, 50),
          p99: at(seen, 99),
          p99_9: at(seen, 99.9),
        },
        latency: seen.latency,
      };
    },
  };
}

export const connections: Workload = {
  name: 'connections',
  title: 'Connections with one exchange of 64 bytes each',
  method: 'wrk, one thread, 64 at a time: connect, 64 bytes there and back, close.',
  group: 'connections',
  protocol: 'tcp',
  tool: 'wrk',
  metrics: [
    { name: 'rate', title: 'Connections', unit: '1/s', better: 'higher' },
    { name: 'cpuPerConnection', ...cpuMetrics.system('µs/connection') },
    { name: 'subjectCpuPerConnection', ...cpuMetrics.subject('µs/connection') },
    { name: 'failures', title: 'Failed connections', unit: '', better: 'lower' },
  ],
  expected: wholeSeconds,
  measure: async (measurement) => {
    const { spent, requests, seconds, failures } = await wrk(measurement, 'close', 64);
    return {
      values: {
        rate: requests / seconds,
        cpuPerConnection: (spent.system * 1e6) / requests,
        subjectCpuPerConnection: (spent.subject * 1e6) / requests,
        failures,
      },
    };
  },
};

/** wrk knows no parts of seconds. */
function wholeSeconds(seconds: number): number {
  return Math.max(1, Math.round(seconds));
}

interface Seen {
  readonly requests: number;
  readonly seconds: number;
  readonly failures: number;
  readonly latency: readonly (readonly [number, number])[];
}

async function wrk(
  measurement: Measurement,
  mode: 'keep-alive' | 'close',
  count: number,
): Promise<Seen & { readonly spent: Spent }> {
  const { world, processes, running, ports } = measurement;
  const { address, port } = running.entrance(ports.echo);
  const seconds = wholeSeconds(measurement.seconds);
  const words = ['-t1', `-c${count}`, `-d${seconds}s`, '--timeout', '2s', '-s', script];
  const url = `http://${bracketed(address)}:${port}/`;
  const command = ['wrk', ...words, url, '--', mode];
  const [output, spent] = await spending(measurement, () =>
    processes.run(world.client, command, seconds + 5),
  );
  const seen: Seen = JSON.parse(/^\{.*\}$/m.exec(output)?.[0] ?? 'null');
  if (!(seen?.requests > 0)) throw new Error('wrk got no answer');
  return { ...seen, spent };
}

function at({ latency }: Seen, percentile: number): number {
  return latency.find(([p]) => p === percentile)?.[1] ?? Number.NaN;
}
