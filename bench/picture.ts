/** Draws the figures for bench/README.md: ours and the floor as parts of the peer, light and dark. */
import { median, type Row } from './figures.ts';

/** The drawn figures, by work and figure; less is better in all of them. */
const DRAWN: [work: string, figure: string, label: string][] = [
  ['plain generation, 8 cards, model without delay', 'CPU, one at a time', 'generation, CPU'],
  ['plain generation, 8 cards, model without delay', 'CPU, 16 at a time', 'generation, CPU, 16 at a time'],
  ['plain generation, 8 cards, database 20 ms, model 100 ms', 'p50, one at a time', 'generation, time'],
  ['401', 'CPU, one at a time', '401, CPU'],
  ['400', 'CPU, one at a time', '400, CPU'],
  ['429', 'CPU, one at a time', '429, CPU'],
  ['streamed answer, 8 cards', 'CPU, one at a time', 'stream of 8 cards, CPU'],
  ['streamed answer, 50 cards', 'CPU, one at a time', 'stream of 50 cards, CPU'],
  ['streamed answer, 200 cards', 'CPU, one at a time', 'stream of 200 cards, CPU'],
  ['streamed answer, 50 cards, model 2 ms a chunk', "card's last byte to its event, p50", 'last byte to event, p50'],
  ['cold start, over an empty worker', 'CPU until the first answer', 'cold start, CPU'],
  ['first generation after a cold start', 'CPU', 'first generation, CPU'],
  ['script', 'size, gzipped', 'script, gzipped'],
];

const [WIDTH, LEFT, RIGHT, TOP, LINE] = [760, 230, 130, 52, 26];
/** The peer is 1; longer bars are cut, and labelled with their number. */
const RATIO_MAX = 1.5;

const x = (ratio: number) => LEFT + (Math.max(0, Math.min(ratio, RATIO_MAX)) / RATIO_MAX) * (WIDTH - LEFT - RIGHT);

export function picture(rows: Row[]): string {
  const lines = DRAWN.flatMap(([work, figure, label]) => {
    const row = rows.find((row) => row.work === work && row.figure === figure);
    const [ours, peer, floor] = ['ours', 'peer', 'floor'].map((name) => row?.samples[name]);
    if (row === undefined || ours === undefined || peer === undefined || floor === undefined) return [];
    const [own, other, least] = [median(ours), median(peer), median(floor)];
    return [{ label, ratio: own / other, floor: least / other, text: `${short(own)} of ${short(other)} ${row.unit}` }];
  });
  const height = TOP + lines.length * LINE + 12;
  const drawn = lines.map(({ label, ratio, floor, text }, index) => {
    const y = TOP + index * LINE;
    return [
      `<text x="${LEFT - 10}" y="${y + 13}" text-anchor="end">${label}</text>`,
      `<rect class="ours" x="${LEFT}" y="${y + 2}" width="${(x(ratio) - LEFT).toFixed(1)}" height="14" rx="2"/>`,
      `<rect class="floor" x="${(x(floor) - 1).toFixed(1)}" y="${y - 1}" width="3" height="20"/>`,
      `<text class="quiet" x="${WIDTH - RIGHT + 10}" y="${y + 13}">${text}</text>`,
    ].join('\n');
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-label="ai-sessions and the floor, as parts of a peer in TypeScript">
<style>
  svg { font: 12px system-ui, sans-serif; background: #fff; }
  text { fill: #1f2328; } .quiet { fill: #59636e; } .ours { fill: #0969da; } .floor { fill: #bc4c00; } .peer { stroke: #59636e; stroke-dasharray: 4 3; }
  @media (prefers-color-scheme: dark) {
    svg { background: #0d1117; }
    text { fill: #e6edf3; } .quiet { fill: #9198a1; } .ours { fill: #4493f8; } .floor { fill: #f0883e; } .peer { stroke: #9198a1; }
  }
</style>
<rect class="ours" x="${LEFT}" y="12" width="14" height="10" rx="2"/><text x="${LEFT + 20}" y="21">ai-sessions</text>
<rect class="floor" x="${LEFT + 110}" y="9" width="3" height="16"/><text x="${LEFT + 120}" y="21">the least</text>
<text class="quiet" x="${x(1)}" y="38" text-anchor="middle">peer in TypeScript</text>
<text class="quiet" x="${WIDTH - RIGHT + 10}" y="38">ours of the peer's</text>
<line class="peer" x1="${x(1)}" y1="44" x2="${x(1)}" y2="${height - 8}"/>
${drawn.join('\n')}
</svg>
`;
}

const short = (value: number) => value.toPrecision(2).includes('e') ? String(Math.round(value)) : String(Number(value.toPrecision(2)));
