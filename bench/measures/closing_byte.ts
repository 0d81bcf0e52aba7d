/** Measures the delay of a streamed candidate: from the write of its last byte to its event at the client. */
import { inTurn, type Measure } from '../bench.ts';
import { eventsOf, send } from '../client.ts';
import { type Goal, quantile, type RowHead } from '../figures.ts';

const CARDS = 50;
/** Faster than any model, slow enough that every target has processed the chunk before. */
const CHUNK_DELAY_MS = 2;

export const closingByte: Measure = {
  name: 'closing-byte',
  title: "from a card's last byte to its event",
  when: 'each round',
  async run({ upstream, traffic, figures, contenders, quick }, round) {
    const streams = quick ? 1 : 2;
    await upstream.set({ cards: CARDS, chunk_delay_ms: CHUNK_DELAY_MS });
    for (const { name, target } of inTurn(contenders, round)) {
      const waits_ms: number[] = [];
      for (let stream = 0; stream < streams; stream += 1) {
        const answer = await send(target.url, traffic.stream(traffic.users[stream] ?? ''));
        const { closed_ms } = await upstream.log();
        const candidates = eventsOf(answer).filter(({ event }) => event === 'candidate');
        if (candidates.length !== CARDS || closed_ms.length !== CARDS) throw new Error(`${name} streams ${candidates.length} of ${closed_ms.length} cards`);
        waits_ms.push(...candidates.map(({ at_ms }, index) => at_ms - (closed_ms[index] ?? Number.NaN)));
      }
      const row = (figure: string, goal: Goal): RowHead => ({ work: `streamed answer, ${CARDS} cards, model ${CHUNK_DELAY_MS} ms a chunk`, figure, unit: 'ms', goal });
      // The floor that stores each card before it sends it.
      figures.add(row("card's last byte to its event, p50", { over: 'floor-with-promises', at: 1.1, is: 'at most' }), name, quantile(waits_ms, 0.5));
      figures.add(row("card's last byte to its event, p99", { over: 'peer', at: 0.5, is: 'at most' }), name, quantile(waits_ms, 0.99));
    }
  },
};
