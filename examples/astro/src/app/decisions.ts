/**
 * What a learner makes of the proposed cards: keeps, edits or rejects them. Kept in this browser; an app of your own puts
 * kept cards into its own table here.
 */
import type { Candidate } from '../ai-sessions/documents.ts';
import { keep, readKept } from './kept.ts';

export type Verdict = 'kept' | 'rejected';

export interface Decision {
  verdict?: Verdict | undefined;
  /** The learner's own words. */
  edited?: { front: string; back: string };
}

/** By the candidate's id. */
export type Decisions = { [id: string]: Decision };

const item = (sessionId: string) => `cards.decisions.${sessionId}`;

export const readDecisions = (sessionId: string): Decisions => readKept<Decisions>(localStorage, item(sessionId)) ?? {};

export const keepDecisions = (sessionId: string, decisions: Decisions) => keep(localStorage, item(sessionId), decisions);

/**
 * A spreadsheet takes a cell that begins like this for a formula, which can send the other cells away. White space, quotes and
 * invisible characters in front do not hide the sign from every program; East Asian spreadsheets take the full-width signs too.
 */
const FORMULA = /^(?:[\t\r]|[\s"'\p{Cf}]*[=+\-@\uff1d\uff0b\uff0d\uff20])/u;

/**
 * The kept cards as CSV (RFC 4180), which flashcard programs read: front, back. A cell that a spreadsheet would take for a
 * formula gets an apostrophe in front, with which spreadsheets mark a text.
 */
export function csvOf(cards: Candidate[], decisions: Decisions): string {
  const quoted = (text: string) => `"${FORMULA.test(text) ? "'" : ''}${text.replaceAll('"', '""')}"`;
  return cards
    .filter(({ id }) => decisions[id]?.verdict === 'kept')
    .map((card) => decisions[card.id]?.edited ?? card)
    .map(({ front, back }) => `${quoted(front)},${quoted(back)}\r\n`)
    .join('');
}
