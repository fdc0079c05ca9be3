/**
 * The page of a run in a real browser, opened as a file: what is drawn is measured on the screen and held
 * against the figures of the run, for a chart that is wrong looks as good as one that is right.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { type Browser, chromium, type Page } from 'playwright-core';
import { renderReport } from '../../bench/report/report.ts';
import type { Cell, Ratio, Results } from '../../bench/results.ts';
import { median } from '../../bench/statistics.ts';
import { skipUnless } from '../support/requirements.ts';
import { sampleResults } from './sample-results.ts';

const quietly = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--disable-sync',
  '--disable-background-networking',
  '--disable-component-update',
  '--no-first-run',
];

const results = sampleResults({ cutShort: true });
const worlds = ['4to4', '6to4'] as const;

describe('the page of a run', { skip: skipUnless('chromium'), timeout: 110_000 }, () => {
  const directory = mkdtempSync(join(tmpdir(), 'dualport-report-'));
  const requests: string[] = [];
  const complaints: string[] = [];
  let browser: Browser;
  let page: Page;

  before(async () => {
    browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: quietly });
    page = await opened(results);
  });

  after(async () => {
    await browser?.close();
    rmSync(directory, { recursive: true });
  });

  async function opened(run: Results): Promise<Page> {
    const file = join(directory, 'run.html');
    writeFileSync(file, renderReport(run));
    const fresh = await browser.newPage({ viewport: { width: 1280, height: 900 }, colorScheme: 'light' });
    fresh.on('request', (request) => requests.push(request.url()));
    fresh.on('console', (message) => complaints.push(`${message.type()}: ${message.text()}`));
    fresh.on('pageerror', (error) => complaints.push(error.message));
    await fresh.goto(pathToFileURL(file).href);
    await allDrawn(fresh);
    return fresh;
  }

  test('asks for nothing but itself and has nothing to complain of', () => {
    assert.deepEqual(requests, [pathToFileURL(join(directory, 'run.html')).href]);
    assert.deepEqual(complaints, []);
  });

  test('keeps hostile text a text', async () => {
    assert.equal(await page.title(), 'dualport bench: full run of 21 November 2026');
    assert.equal(await page.locator('img').count(), 0);
  });

  test('has a bar for every median, as long as it is, and a whisker from the lowest to the highest', async () => {
    for (const families of worlds) {
      const charts = await barCharts(page, families);
      const places = placesOf(results, families);
      assert.equal(charts.length, places.length);
      for (const [nth, { label, cells }] of places.entries()) holdBars(charts[nth], label, cells);
    }
  });

  test('names every subject that could run in every chart of bars, and says why it has no bar', async () => {
    const able = results.subjects.filter(({ missing }) => missing === undefined).map(({ name }) => name);
    for (const { names, absent, bars } of await barCharts(page, '4to4')) {
      assert.deepEqual(names, able);
      assert.equal(bars.length + absent.length, able.length);
      for (const word of absent) {
        assert.match(word, /^(?:failed|failed its gate|not applicable|not measured)$/);
      }
    }
  });

  test('draws a latency curve for every subject, by percentile and by the median of the rounds', async () => {
    for (const families of worlds) {
      const [chart, ...more] = await lineCharts(page, `#t2-${families}-latency`);
      assert.ok(chart);
      assert.equal(more.length, 0);
      const curves = curvesOf(results, families);
      assert.deepEqual(new Set(chart.names), new Set(curves.keys()));
      assert.equal(chart.lines.length, curves.size);
      const nines = (percentile: number) => -Math.log10(1 - percentile / 100);
      const points = [...curves.values()].map((curve) =>
        curve.filter(([percentile]) => percentile < 100).map(([x, y]) => [nines(x), Math.log10(y)] as const),
      );
      holdLines(chart.lines, points);
    }
  });

  test('draws what start-up takes as lines over the published ports', async () => {
    const charts = await lineCharts(page, '#t2-4to4-start-up');
    assert.equal(charts.length, 3);
    for (const [nth, metric] of ['readyMs', 'pssMiB', 'rssMiB'].entries()) {
      const lines = results.subjects.flatMap(({ name }) => {
        const own = [1, 10, 100].flatMap((ports) => {
          const cell = cellAt(results, '4to4', `start-up-${ports}`, metric, name);
          return cell === undefined ? [] : [[Math.log10(ports), Math.log10(cell.median)] as const];
        });
        return own.length === 0 ? [] : [own];
      });
      assert.ok(lines.length > 5);
      holdLines(charts[nth]?.lines ?? [], lines);
    }
  });

  test('writes no name of a line over another', async () => {
    for (const { namesAt } of await lineCharts(page, 'main')) {
      const sorted = namesAt.toSorted((a, b) => a - b);
      for (const [nth, y] of sorted.entries()) {
        if (nth > 0) assert.ok(y - (sorted[nth - 1] ?? 0) > 11, `${y}`);
      }
    }
  });

  test('shows every ratio of the file, each in its cell', async () => {
    let shown = 0;
    for (const families of worlds) {
      const cells = await ratioCells(page, families);
      for (const ratio of results.ratios.filter((each) => each.families === families)) {
        const { rounds, low, high, verdict } = ratio;
        const interval = rounds < 3 ? `(${rounds} rounds)` : `[${two(low)}–${two(high)}]`;
        const key = keyOf(ratio);
        assert.equal(cells.get(key), `${two(ratio.median)} ${interval} ${verdict}`, key);
        shown++;
      }
      assert.equal([...cells.values()].filter((text) => text !== '–').length, shown);
      shown = 0;
    }
  });

  test('is as wide as a phone on a phone, with its tables open too, and draws again when turned', async () => {
    const phone = await opened(results);
    await phone.setViewportSize({ width: 360, height: 780 });
    await becomes(phone, 'document.querySelector("[data-chart] svg").clientWidth < 360');
    await allDrawn(phone);
    const width = () => phone.evaluate('document.scrollingElement.scrollWidth');
    assert.equal(await width(), 360);
    await phone.evaluate('document.querySelectorAll("details").forEach((each) => { each.open = true; })');
    assert.equal(await width(), 360);
    assert.deepEqual(await textsOutside(phone), []);
    await phone.setViewportSize({ width: 780, height: 360 });
    await becomes(phone, 'document.querySelector("[data-chart] svg").clientWidth > 600');
    await phone.close();
    assert.deepEqual(complaints, []);
  });

  test('can be read in light and in dark', async () => {
    const grounds = [];
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme });
      grounds.push(await page.evaluate('getComputedStyle(document.body).backgroundColor'));
      const contrasts = await contrastsOf(page);
      assert.ok(contrasts.length > 1000);
      assert.deepEqual(
        contrasts.filter(({ contrast }) => contrast < 4.5),
        [],
      );
    }
    assert.notEqual(grounds[0], grounds[1]);
  });

  test('draws a run of which hardly anything is left', async () => {
    const few = results.samples.slice(0, 3);
    const cells = results.cells.slice(0, 2);
    const little = await opened({ ...results, samples: few, cells, ratios: [] });
    assert.equal(await little.locator('[data-chart] svg').count(), 3);
    await little.close();
    assert.deepEqual(complaints, []);
  });
});

/** What is asked of an element: the types of a browser are not those of this program. */
interface Shape {
  readonly textContent: string | null;
  readonly parentElement: Shape | null;
  readonly previousElementSibling: Shape | null;
  readonly firstChild: Shape | null;
  readonly childNodes: Iterable<{ readonly nodeType: number; readonly nodeValue: string | null }>;
  readonly namespaceURI: string | null;
  readonly ownerDocument: { readonly defaultView: { getComputedStyle(shape: Shape): Style } };
  getAttribute(name: string): string | null;
  getBoundingClientRect(): {
    readonly left: number;
    readonly right: number;
    readonly top: number;
    readonly bottom: number;
  };
  querySelector(selector: string): Shape | null;
  querySelectorAll(selector: string): Iterable<Shape>;
}

interface Style {
  readonly color: string;
  readonly fill: string;
  readonly backgroundColor: string;
}

async function allDrawn(page: Page): Promise<void> {
  await becomes(
    page,
    '[...document.querySelectorAll("[data-chart]")].every((place) => place.querySelector("svg") && place.getAttribute("data-width") === String(Math.floor(place.clientWidth)))',
  );
}

interface Place {
  readonly label: string;
  readonly cells: readonly Cell[];
}

/** Every metric that is drawn, in the order of the page, with its cells in the order of the subjects. */
function placesOf({ workloads, subjects, cells }: Results, families: string): readonly Place[] {
  const groups = ['bulk', 'requests', 'latency', 'connections', 'udp', 'memory', 'start-up'];
  return workloads
    .toSorted((a, b) => groups.indexOf(a.group) - groups.indexOf(b.group))
    .flatMap((workload) =>
      workload.metrics.map(({ name, title }) => ({
        label: `${workload.title}, ${title}`,
        cells: subjects.flatMap((subject) =>
          cells.filter(
            (cell) =>
              cell.families === families &&
              cell.workload === workload.name &&
              cell.metric === name &&
              cell.subject === subject.name,
          ),
        ),
      })),
    );
}

function cellAt({ cells }: Results, families: string, workload: string, metric: string, subject: string) {
  return cells.find(
    (cell) =>
      cell.families === families &&
      cell.workload === workload &&
      cell.metric === metric &&
      cell.subject === subject,
  );
}

interface BarChart {
  readonly label: string;
  readonly names: readonly string[];
  /** By pixels; `row` is the name at the same height. */
  readonly bars: readonly { readonly row: string; readonly from: number; readonly to: number }[];
  readonly whiskers: readonly { readonly from: number; readonly to: number }[];
  readonly values: readonly string[];
  readonly absent: readonly string[];
}

function barCharts(page: Page, families: string): Promise<readonly BarChart[]> {
  const places = page.locator(`#t2-${families} [data-chart][aria-label^="Bars"]`);
  return places.evaluateAll((charts: readonly Shape[]) =>
    charts.map((chart) => {
      const all = (selector: string) => [...chart.querySelectorAll(selector)];
      const box = (element: Shape) => element.getBoundingClientRect();
      const middle = (element: Shape) => (box(element).top + box(element).bottom) / 2;
      const ticks = all('[aria-label="y-axis tick label"] text');
      const nearest = (y: number) =>
        ticks.toSorted((a, b) => Math.abs(middle(a) - y) - Math.abs(middle(b) - y))[0]?.textContent ?? '';
      const texts = (selector: string) => all(selector).map((element) => element.textContent ?? '');
      return {
        label: chart.getAttribute('aria-label') ?? '',
        names: ticks.map((tick) => tick.textContent ?? ''),
        bars: all('.bar rect').map((bar) => ({
          row: nearest(middle(bar)),
          from: box(bar).left,
          to: box(bar).right,
        })),
        whiskers: all('.whisker line').map((line) => ({ from: box(line).left, to: box(line).right })),
        values: texts('.value text'),
        absent: texts('.absent text'),
      };
    }),
  );
}

/** One scale, from zero, for all bars and whiskers of a chart. */
function holdBars(chart: BarChart | undefined, label: string, cells: readonly Cell[]): void {
  assert.ok(chart !== undefined, label);
  assert.ok(chart.label.startsWith(`Bars: ${label}`), `${chart.label} is not ${label}`);
  assert.deepEqual(
    chart.bars.map(({ row }) => row),
    cells.map(({ subject }) => subject),
  );
  const longest = cells.findIndex((cell) => cell.median === Math.max(...cells.map((each) => each.median)));
  const zero = chart.bars[longest]?.from ?? 0;
  const pixels = ((chart.bars[longest]?.to ?? 0) - zero) / (cells[longest]?.median || 1);
  const isAt = (pixel: number | undefined, value: number) =>
    assert.ok(Math.abs((pixel ?? 0) - zero - value * pixels) < 1, `${label}: ${pixel} is not ${value}`);
  for (const [nth, { median, min, max }] of cells.entries()) {
    isAt(chart.bars[nth]?.to, median);
    isAt(chart.whiskers[nth]?.from, min);
    isAt(chart.whiskers[nth]?.to, max);
    const shown = Number((chart.values[nth] ?? '').replace(/ \(.*|,/g, ''));
    assert.ok(Math.abs(shown - median) <= 0.006 * median, `${label}: ${shown} is not ${median}`);
  }
}

function curvesOf({ samples, subjects }: Results, families: string) {
  const curves = new Map<string, readonly (readonly [number, number])[]>();
  for (const { name } of subjects) {
    const own = samples.filter((sample) => sample.subject === name && sample.families === families);
    const latencies = own.flatMap(({ latency }) => (latency === undefined ? [] : [latency]));
    const [first] = latencies;
    if (first === undefined) continue;
    curves.set(
      name,
      first.map(([percentile], nth) => [percentile, median(latencies.map((each) => each[nth]?.[1] ?? 0))]),
    );
  }
  return curves;
}

type Point = readonly [x: number, y: number];

interface LineChart {
  readonly names: readonly string[];
  readonly namesAt: readonly number[];
  readonly lines: readonly (readonly Point[])[];
}

async function lineCharts(page: Page, within: string): Promise<readonly LineChart[]> {
  const places = page.locator(`${within} [data-chart]:not([aria-label^="Bars"])`);
  const read = await places.evaluateAll((charts: readonly Shape[]) =>
    charts.map((chart) => {
      const names = [...chart.querySelectorAll('.name text')];
      return {
        names: names.map((name) => name.textContent ?? ''),
        namesAt: names.map((name) => name.getBoundingClientRect().top),
        paths: [...chart.querySelectorAll('.line path')].map((path) => path.getAttribute('d') ?? ''),
      };
    }),
  );
  return read.map(({ names, namesAt, paths }) => ({
    names,
    namesAt,
    lines: paths.map((path) =>
      path
        .slice(1)
        .split('L')
        .map((pair) => pair.split(',').map(Number) as [number, number]),
    ),
  }));
}

/** The pixels are one straight scale of the values, along and up, for all lines of a chart. */
function holdLines(drawn: readonly (readonly Point[])[], expected: readonly (readonly Point[])[]): void {
  assert.deepEqual(
    drawn.map(({ length }) => length),
    expected.map(({ length }) => length),
  );
  for (const axis of [0, 1] as const) {
    const values = expected.flat().map((point) => point[axis]);
    const pixels = drawn.flat().map((point) => point[axis]);
    const [low, high] = [values.indexOf(Math.min(...values)), values.indexOf(Math.max(...values))];
    const at = (array: readonly number[], nth: number) => array[nth] ?? Number.NaN;
    const scale = (at(pixels, high) - at(pixels, low)) / (at(values, high) - at(values, low));
    assert.ok(axis === 0 ? scale > 0 : scale < 0);
    for (const [nth, value] of values.entries()) {
      const pixel = at(pixels, low) + (value - at(values, low)) * scale;
      assert.ok(Math.abs(at(pixels, nth) - pixel) < 0.5, `${at(pixels, nth)} is not ${pixel}`);
    }
  }
}

/** By workload, metric, subject and what it is divided by; `–` is a cell without a ratio. */
async function ratioCells(page: Page, families: string): Promise<ReadonlyMap<string, string>> {
  const tables = page.locator(`#t2-${families}-ratios table`);
  const rows = await tables.evaluateAll((all: readonly Shape[]) =>
    all.flatMap((table) => {
      const text = (element: Shape | null | undefined) =>
        (element?.textContent ?? '').replace(/\s+/g, ' ').trim();
      const title = text(table.parentElement?.previousElementSibling);
      const heads = [...table.querySelectorAll('thead th')].slice(1).map(text);
      return [...table.querySelectorAll('tbody tr:not(:first-child)')].flatMap((row) => {
        const workload = text(row.parentElement?.querySelector('th'));
        const metric = (row.querySelector('th')?.firstChild?.textContent ?? '').trim();
        return [...row.querySelectorAll('td')].map((cell, nth) => ({
          ...{ workload, metric, title, head: heads[nth] ?? '', cell: text(cell) },
        }));
      });
    }),
  );
  return new Map(
    rows.map(({ workload, metric, title, head, cell }) => {
      const [first = '', second = ''] = title.split(' divided by ');
      const pair = head.startsWith('÷ ') ? [first, head.slice(2)] : [head, second];
      return [[workload, metric, ...pair].join(' | '), cell];
    }),
  );
}

/** Workloads and metrics stand in the tables by their titles, subjects by their names. */
function keyOf({ workload, metric, subject, against }: Ratio): string {
  const record = results.workloads.find(({ name }) => name === workload);
  const title = record?.metrics.find(({ name }) => name === metric)?.title;
  return [record?.title, title, subject, against].join(' | ');
}

function two(value: number): string {
  if (value !== 0 && value < 0.1) return value.toPrecision(2);
  return value >= 100 ? Math.round(value).toLocaleString('en') : value.toFixed(2);
}

/** Texts of charts that stick out of the screen. */
function textsOutside(page: Page): Promise<readonly string[]> {
  return page.locator('[data-chart] text').evaluateAll((texts: readonly Shape[]) =>
    texts
      .filter((text) => {
        const { left, right } = text.getBoundingClientRect();
        return left < 0 || right > 360;
      })
      .map((text) => text.textContent ?? ''),
  );
}

/** WCAG 2 contrast of every text with what is behind it. */
function contrastsOf(page: Page): Promise<readonly { text: string; contrast: number }[]> {
  return page.locator('body *:not(script)').evaluateAll((elements: readonly Shape[]) => {
    const channels = (colour: string) => (colour.match(/[\d.]+/g) ?? []).map(Number);
    const luminance = (colour: string) => {
      const [red = 0, green = 0, blue = 0] = channels(colour)
        .slice(0, 3)
        .map((channel) => channel / 255)
        .map((channel) => (channel <= 0.03928 ? channel / 12.92 : ((channel + 0.055) / 1.055) ** 2.4));
      return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const styleOf = (element: Shape) => element.ownerDocument.defaultView.getComputedStyle(element);
    const groundOf = (element: Shape | null): string => {
      if (element === null) return 'rgb(255, 255, 255)';
      const colour = styleOf(element).backgroundColor;
      return channels(colour)[3] === 0 ? groundOf(element.parentElement) : colour;
    };
    return elements
      .filter((element) =>
        [...element.childNodes].some((node) => node.nodeType === 3 && node.nodeValue?.trim()),
      )
      .map((element) => {
        const style = styleOf(element);
        const inSvg = element.namespaceURI?.endsWith('svg') ?? false;
        const light = [luminance(inSvg ? style.fill : style.color), luminance(groundOf(element))];
        const contrast = (Math.max(...light) + 0.05) / (Math.min(...light) + 0.05);
        return { text: (element.textContent ?? '').slice(0, 40), contrast };
      });
  });
}

/** Asked again and again from here: waitForFunction would need what the page's own policy forbids, eval. */
async function becomes(page: Page, condition: string): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!(await page.evaluate(condition))) {
    if (performance.now() > deadline) throw new Error(`it does not become true: ${condition}`);
    await sleep(20);
  }
}
