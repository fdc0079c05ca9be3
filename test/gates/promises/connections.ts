/**
 * Connections that come and go, more than three times as many as there are ports for either side of the relay to
 * connect from, so that all of them are used again and again.
 */
import { type Arena, back, front, givenBack, publish } from '../arena.ts';
import { type Findings, faultsText } from '../findings.ts';
import type { Gate } from '../gate.ts';

const counts = { ci: 100_000, soak: 5_000_000, tiny: 4000 } as const;

export const connections: Gate = {
  name: 'connections',
  promise: 'every connection is served: all of its bytes, no others, and a clean end',
  lane: 'works',
  run,
  line: (of) =>
    `${of.least('ok')} ok   ${of.sum('failed')} failed   upper bound ${((3 / of.least('tried')) * 100).toPrecision(1)} %`,
};

async function run(arena: Arena, findings: Findings): Promise<void> {
  const count = counts[arena.form];
  await arena.open();
  await arena.echo(back);
  const relay = await arena.relay(publish);
  await arena.churn(front, 200);
  const before = await relay.restingHoldings();
  const flowsBefore = await relay.metric('dualport_flows_total', 'tcp');
  const { ok, failed, faults, seconds, longestMs } = await arena.churn(front, count, ['--most', '4096']);
  findings.note('tried', count);
  findings.note('ok', ok);
  findings.note('failed', failed);
  findings.note('perSecond', count / seconds);
  findings.note('longestMs', longestMs);
  findings.equal('connections that failed', failed, 0, faultsText(faults));
  findings.equal('connections served', ok, count);
  findings.equal(
    'flows that dualport counted',
    (await relay.metric('dualport_flows_total', 'tcp')) - flowsBefore,
    count,
  );
  findings.equal(
    'resets and refusals that it counted',
    (await relay.metric('dualport_resets_total')) +
      (await relay.metric('dualport_rejected_total')) +
      (await relay.metric('dualport_upstream_connect_failures_total')),
    0,
  );
  findings.same('what it does not give back', await givenBack(relay, before, 10_000), '');
  await arena.judgeAfterwards(findings, relay, 'tcp');
}
