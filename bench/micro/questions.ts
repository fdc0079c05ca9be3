/** Every question, in the order of a connection's way through the program. */
import { address } from './address.ts';
import { decide } from './decide.ts';
import { flowRecord } from './flow-record.ts';
import { flowStart } from './flow-start.ts';
import { headerDecode } from './header-decode.ts';
import { headerEncode } from './header-encode.ts';
import { nativeCall } from './native-call.ts';
import type { Question } from './question.ts';

export const allQuestions: readonly Question[] = [
  address,
  headerDecode,
  decide,
  flowStart,
  headerEncode,
  flowRecord,
  nativeCall,
];
