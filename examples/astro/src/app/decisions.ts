/**
 * The learner's decisions on proposed cards: kept, edited, rejected. Stored in this browser; an app of your own would store
 * kept cards in its own table here.
 */
import type { Candidate } from '../ai-sessions/documents.ts';
import { keep, readKept } from './kept.ts';

export type Verdict = 'kept' | 'rejected';

export interface Decision {
  verdict?: Verdict | undefined;
  /** The edited texts. */
  edited?: { front: string; back: string };
}

/** By the candidate's id. */
export type Decisions = { [id: string]: Decision };

const item = (sessionId: string) => `cards.decisions.${sessionId}`;

export const readDecisions = (sessionId: string): Decisions => readKept<Decisions>(localStorage, item(sessionId)) ?? {};

export const keepDecisions = (sessionId: string, decisions: Decisions) => keep(localStorage, item(sessionId), decisions);

/**
 * A spreadsheet reads a cell with this beginning as a formula, which can send the other cells elsewhere. Some programs skip
 * white space, quotes and invisible characters before the sign; East Asian spreadsheets accept the full-width signs too.
 */
const FORMULA = /^(?:[\t\r]|[\s"'\p{Cf}]*[=+\-@\uff1d\uff0b\uff0d\uff20])/u;

/**
 * The kept cards as CSV (RFC 4180), which flashcard programs read: front, back. A cell that a spreadsheet would read as a
 * formula has an apostrophe in front, which marks a text.
 */
export function csvOf(cards: Candidate[], decisions: Decisions): string {
  const quoted = (text: string) => `"${FORMULA.test(text) ? "'" : ''}${text.replaceAll('"', '""')}"`;
  return cards
    .filter(({ id }) => decisions[id]?.verdict === 'kept')
    .map((card) => decisions[card.id]?.edited ?? card)
    .map(({ front, back }) => `${quoted(front)},${quoted(back)}\r\n`)
    .join('');
}
