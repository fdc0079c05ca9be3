import { rows } from './rows/all.ts';
import { faultSuite } from './suite.ts';

await faultSuite('linux', rows);
