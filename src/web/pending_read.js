// Reads of a body, each of which workerd fills natively and nothing abandons. With `streams_byob_reader_does_not_detach_buffer`
// the buffer of a read in progress stays here, and workerd writes into it as bytes arrive: a look, the end and a cut connection
// see every byte. tests/hosts/pending_read.test.ts checks this property of workerd.

const BUFFER_BYTES = 32 * 1024;
/** Buffers that are kept for later reads. */
const BUFFERS_MAX = 16;

/** Zeroed buffers. Only a read that has ended regularly returns its buffer: workerd could still write into another. */
const buffers = [];

/** The outcomes of a read, as in pending_read_body.rs. */
const MORE = 0;
const END = 1;
const CUT = 2;

export class PendingRead {
  /** `ended` is called when a read has ended. */
  constructor(stream, ended) {
    this.reader = stream.getReader({ mode: 'byob' });
    this.ended = ended;
  }

  /** Begins a read, which ends when at least so many bytes have arrived, or at the end of the body. */
  begin(atLeast) {
    this.bytes = buffers.pop() ?? new Uint8Array(BUFFER_BYTES);
    this.taken = 0;
    /** The number of arrived bytes, once the read has ended. */
    this.length = undefined;
    const min = Math.min(atLeast, BUFFER_BYTES);
    this.reader.read(this.bytes, { min }).then(
      ({ value }) => {
        this.length = value?.length ?? 0;
        this.outcome = this.length < min ? END : MORE;
        this.ended();
      },
      () => {
        this.length = this.taken + this.arrived();
        this.outcome = CUT;
        this.ended();
      },
    );
  }

  /** The number of arrived bytes that are not yet taken. During a read, NULs at their end wait for the next byte. */
  arrived() {
    const { bytes, taken } = this;
    let length = this.length ?? BUFFER_BYTES;
    if (this.length === undefined) while (length > taken && bytes[length - 1] === 0) length -= 1;
    return length - taken;
  }

  /** Takes as many arrived bytes as `into` has room for. Returns the outcome of the read. */
  take(into) {
    into.set(this.bytes.subarray(this.taken, this.taken + into.length));
    this.taken += into.length;
    if (this.length === undefined) return MORE;
    if (this.outcome !== CUT && this.taken === this.length && buffers.length < BUFFERS_MAX) {
      buffers.push(this.bytes.fill(0, 0, this.length));
    }
    return this.outcome;
  }

  /** Nothing waits for the read in progress any more. */
  abandon() {
    this.ended = () => {};
  }
}
