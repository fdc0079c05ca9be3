/**
 * One run as one HTML file that needs nothing else: styles, libraries, our script and the data are inlined, and
 * its policy lets the browser fetch nothing. Text and tables are made here; the charts are drawn in the
 * browser by Observable Plot, because only there the width is known: drawn in advance they would be scaled down
 * on a phone until nobody can read them.
 */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import type { Results } from '../results.ts';
import { machine, method } from './conditions.ts';
import { codeFor, html, jsonFor, Markup } from './markup.ts';
import { absences, summary, titleOf } from './overview.ts';
import type { Chart } from './page/chart.ts';
import { ratioSection } from './ratio-tables.ts';
import { familiesMeaning } from './wording.ts';
import { type Draw, groupSections, groupsOf } from './workload-cards.ts';
import { type World, worldsOf } from './worlds.ts';

/** Nothing is fetched, not even from where the file is. */
const policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'";

export function renderReport(results: Results): string {
  const charts: Record<string, Chart> = {};
  const draw: Draw = (chart) => {
    const id = `chart-${Object.keys(charts).length + 1}`;
    charts[id] = chart;
    return html`<div data-chart="${id}" role="img" aria-label="${chart.label}"></div>`;
  };
  // Before the page, which holds the charts these have asked for.
  const body = contents(results, draw);
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${new Markup(policy)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${titleOf(results)}</title>
<style>${new Markup(read(new URL('../../../bench/report/page/report.css', import.meta.url)))}</style>
</head>
<body>
${body}
<script type="application/json" id="charts">${jsonFor(charts)}</script>
${libraries().map((library) => html`<script>${codeFor(read(library))}</script>`)}
<script type="module">${codeFor(read(new URL('./page/draw.js', import.meta.url)))}</script>
</body>
</html>
`.text;
}

function contents(results: Results, draw: Draw): Markup {
  const worlds = worldsOf(results);
  return html`
<header>
<h1>${titleOf(results)}</h1>
${summary(results, worlds)}
</header>
${navigation(worlds)}
<main>
${legend}
${absences(results)}
${worlds.map((world) => worldSection(results, world, draw))}
${method(results)}
${machine(results)}
</main>`;
}

function navigation(worlds: readonly World[]): Markup {
  return html`
<nav aria-label="Contents">
<ul><li><a href="#missing">What is missing or failed</a></li><li><a href="#method">Method</a></li><li><a href="#machine">Machine</a></li></ul>
${worlds.map(
  (world) =>
    html`<ul><li><a href="#${world.id}">${world.title}</a></li>${[
      ...groupsOf(world),
      { id: `${world.id}-ratios`, title: 'Ratios' },
    ].map(({ id, title }) => html`<li><a href="#${id}">${title}</a></li>`)}</ul>`,
)}
</nav>`;
}

const legend = html`
<ul class="legend" aria-label="Kinds of subjects">
<li><span class="bound"></span>bound: no program in between</li>
<li><span class="peer"></span>peer</li>
<li><span class="dualport"></span>dualport</li>
<li>bar: median of the rounds · whisker: lowest to highest round</li>
</ul>`;

function worldSection(results: Results, world: World, draw: Draw): Markup {
  const topology = results.topologies.find(({ name }) => name === world.topology);
  return html`
<section id="${world.id}">
<h2>${world.title}</h2>
<p class="quiet">${world.topology}: ${topology?.title ?? ''}. ${familiesMeaning(world.families)}</p>
${groupSections(world, results.subjects, draw)}
${ratioSection(world, results)}
</section>`;
}

/** The builds for browsers of the installed packages; Plot expects d3, its own dependency, as a global. */
function libraries(): readonly string[] {
  const plot = createRequire(import.meta.url).resolve('@observablehq/plot');
  const d3 = createRequire(plot).resolve('d3');
  return [join(d3, '../../dist/d3.min.js'), join(plot, '../../dist/plot.umd.min.js')];
}

function read(file: URL | string): string {
  return readFileSync(file, 'utf8');
}
