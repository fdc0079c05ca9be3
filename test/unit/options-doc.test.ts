/**
 * docs/options.md is written by the option table. After a change of the table:
 *
 *     npm run build && UPDATE_DOCS=1 node --test dist/test/unit/options-doc.test.js
 */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import test from 'node:test';
import { loadConfig } from '../../src/config/load.ts';
import {
  environmentOf,
  flagOf,
  type OptionKey,
  optionKeys,
  options,
  ruleKeys,
} from '../../src/config/options.ts';

const regenerate = 'npm run build && UPDATE_DOCS=1 node --test dist/test/unit/options-doc.test.js';
const file = new URL('../../../docs/options.md', import.meta.url);

const introduction = `# Options

Every option is a flag, an environment variable and a key of the configuration file. A flag wins over a variable, a
variable over an entry of \`publish\` in the file, that over \`defaults\` in the file, and all over the default here.

* Options of rules (**rule** in the tables) stand in the file under \`defaults\` or in an entry of \`publish\`; options of
  the process stand at the top.
* Lists are written with commas or spaces, in the file also as YAML lists; as a flag they may be repeated. The ports of
  the strongest source replace those of the others.
* A switch is a flag without a value. A variable that is empty is one that was not set.

\`\`\`yaml
# dualport -c dualport.yaml
logLevel: warn
defaults:
  source: proxy-v2
publish:
  - ports: ["8080:80", "[::]:8443:8443"]
    to: [172.17.0.2, "fd00::2"]
    connectTimeout: 2s
  - ports: 53:53/udp
    to: 10.0.0.53
\`\`\`
`;

function optionsDocument(): string {
  const groups = [...new Set(optionKeys.map((key) => options[key].group))];
  return [introduction, ...groups.map(groupSection), footer].join('\n');
}

const footer = `<!-- Written by the option table, src/config/options.ts. Not to be edited: ${regenerate} -->\n`;

function groupSection(group: string): string {
  const rows = optionKeys.filter((key) => options[key].group === group).map(row);
  const heading = ['flag', 'variable', 'file', 'default', 'allowed', 'meaning'];
  const lines = [heading, heading.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`);
  return `## ${group}\n\n${lines.join('\n')}\n`;
}

function row(key: OptionKey): readonly string[] {
  const { short, placeholder, allowed, defaultText, help } = options[key];
  const flag = [short && `-${short}`, flagOf(key)].filter(Boolean).join(', ');
  const withValue = placeholder === undefined ? flag : `${flag} ${placeholder}`;
  return [code(withValue), code(environmentOf(key)), fileKey(key), ...[defaultText, allowed, help].map(cell)];
}

function fileKey(key: OptionKey): string {
  if (key === 'config') return 'none';
  if (key === 'publish') return `${code('ports')} in an entry of ${code('publish')}`;
  return ruleKeys.some((ruleKey) => ruleKey === key) ? `${code(key)} (**rule**)` : code(key);
}

/** A bar ends a cell, in code too; what stands in angle brackets would be HTML. */
function cell(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('<', '&lt;');
}

function code(text: string): string {
  return `\`${text.replaceAll('|', '\\|')}\``;
}

test('docs/options.md is what the option table writes', () => {
  const expected = optionsDocument();
  if (process.env['UPDATE_DOCS'] === '1') writeFileSync(file, expected);
  assert.equal(
    readFileSync(file, 'utf8'),
    expected,
    `docs/options.md is behind the option table: ${regenerate}`,
  );
});

test('every option has one row of six cells', () => {
  const rows = optionsDocument().match(/^\| `-.*\|$/gm) ?? [];
  assert.equal(rows.length, optionKeys.length);
  for (const key of optionKeys) {
    const found = rows.filter((line) => line.includes(`\`${environmentOf(key)}\``));
    assert.equal(found.length, 1, key);
    assert.equal(found[0]?.split(/(?<!\\)\|/).length, 8, key);
  }
});

test('the file of the introduction is one that dualport takes', () => {
  const [, yaml = ''] = /```yaml\n([^`]+)```/.exec(introduction) ?? [];
  const readFile = () => new TextEncoder().encode(yaml);
  const config = loadConfig({ flags: { config: 'dualport.yaml' }, env: {}, readFile });
  assert.deepEqual(
    config.rules.map(({ name, source }) => `${name} ${source}`),
    ['8080:80/tcp proxy-v2', '[::]:8443:8443/tcp proxy-v2', '53:53/udp proxy-v2'],
  );
});
