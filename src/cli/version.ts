/** The version in package.json, which is found from this file both in a checkout and in the package. */
import { readFileSync } from 'node:fs';

const packageJson: unknown = JSON.parse(
  readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'),
);

export const version: string =
  typeof packageJson === 'object' && packageJson !== null && 'version' in packageJson
    ? String(packageJson.version)
    : 'unknown';
