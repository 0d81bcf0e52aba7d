// The whole lines of a program's output.

import { Writable } from 'node:stream';
import { StringDecoder } from 'node:string_decoder';

/** A stream that calls back with each line that is not empty. */
export function eachLine(received: (line: string) => void): Writable {
  const decoder = new StringDecoder('utf8');
  let rest = '';
  return new Writable({
    write(chunk: Buffer, _encoding, done) {
      const parts = (rest + decoder.write(chunk)).split('\n');
      rest = parts.pop() ?? '';
      for (const line of parts) if (line !== '') received(line);
      done();
    },
    final(done) {
      if (rest !== '') received(rest);
      done();
    },
  });
}
