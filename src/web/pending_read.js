// Reads of a body, each of which workerd fills natively and nothing abandons. With `streams_byob_reader_does_not_detach_buffer`
// the buffer of a read in progress stays here, and workerd writes into it as bytes arrive: a look, the end and a cut connection
// see every byte. tests/hosts/pending_read.test.ts checks this property of workerd.

import { begin } from './operations.js';

const BUFFER_BYTES = 32 * 1024;
/** Buffers that are kept for later reads. */
const BUFFERS_MAX = 16;

/** Zeroed buffers. Only a read that has ended regularly returns its buffer: workerd could still write into another. */
const buffers = [];

/** The outcomes of a read, as in pending_read_body.rs. */
const CUT = 0;
const MORE = 1;
const END = 2;

const NO_BYTES = new Uint8Array();

export class PendingRead {
  constructor(stream) {
    this.reader = stream.getReader({ mode: 'byob' });
  }

  /**
   * Begins a read, an operation. It ends when at least so many bytes have arrived, or at the end of the body, with its outcome and
   * the bytes that no look has taken.
   */
  begin(id, atLeast) {
    const bytes = buffers.pop() ?? new Uint8Array(BUFFER_BYTES);
    const min = Math.min(atLeast, BUFFER_BYTES);
    const end = begin(id, () => {});
    this.bytes = bytes;
    this.taken = 0;
    this.reader.read(bytes, { min }).then(
      ({ value }) => {
        const length = value?.length ?? 0;
        this.bytes = undefined;
        end(length < min ? END : MORE, '', bytes.subarray(this.taken, length));
        // The module has its copy.
        if (buffers.length < BUFFERS_MAX) buffers.push(bytes.fill(0, 0, length));
      },
      () => {
        const rest = this.look();
        this.bytes = undefined;
        end(CUT, '', rest);
      },
    );
  }

  /** Takes the bytes of the read in progress that have arrived. NULs at their end wait for the next byte. */
  look() {
    const { bytes, taken } = this;
    if (bytes === undefined) return NO_BYTES;
    let length = BUFFER_BYTES;
    while (length > taken && bytes[length - 1] === 0) length -= 1;
    this.taken = length;
    return bytes.subarray(taken, length);
  }
}
