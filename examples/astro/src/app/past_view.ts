/** The dialog with the user's past sessions. */
import type { AiSessions } from '../ai-sessions/client.ts';
import type { SessionSummary } from '../ai-sessions/documents.ts';
import { byId, copyOf, within } from './elements.ts';
import { cards, describe, describeCode } from './sentences.ts';

const PAGE = 10;

export function pastView(client: () => AiSessions): void {
  const dialog = byId<HTMLDialogElement>('past');
  const list = byId('past-list');
  const more = byId('more-past');
  const message = byId('past-message');
  let next: string | null = null;
  let loading = new AbortController();

  async function load(before?: string): Promise<void> {
    message.textContent = 'Loading …';
    try {
      const page = await client().list({ limit: PAGE, signal: loading.signal, ...(before === undefined ? {} : { before }) });
      const items = page.sessions.map(itemOf);
      list.append(...items);
      next = page.next;
      more.hidden = next === null;
      message.textContent = list.childElementCount === 0 ? 'None yet: what you make is kept here.' : '';
      // Moves the focus from the button to the continued list.
      if (before !== undefined) within(items[0] ?? list, 'a').focus();
    } catch (error) {
      if (loading.signal.aborted) return;
      message.textContent = describe(error).sentence;
    }
  }

  byId('open-past').addEventListener('click', () => {
    loading = new AbortController();
    list.replaceChildren();
    more.hidden = true;
    dialog.showModal();
    void load();
  });
  more.addEventListener('click', () => {
    if (next !== null) void load(next);
  });
  byId('close-past').addEventListener('click', () => dialog.close());
  dialog.addEventListener('close', () => loading.abort());
  // A link to a session, or a click outside the dialog.
  dialog.addEventListener('click', ({ target }) => {
    if (target === dialog || (target as Element).closest('a') !== null) dialog.close();
  });
}

function itemOf(session: SessionSummary): HTMLElement {
  const item = copyOf('past-template');
  const link = within<HTMLAnchorElement>(item, 'a');
  link.href = `#${session.id}`;
  if (location.hash === link.hash) link.setAttribute('aria-current', 'true');
  const at = new Date(session.created_at).toLocaleString('en', { dateStyle: 'medium', timeStyle: 'short' });
  within(link, 'strong').textContent = at;
  within(link, 'span').textContent = `${outcomeOf(session)} · ${session.model}`;
  return item;
}

function outcomeOf({ status, error, candidate_count, partial }: SessionSummary): string {
  if (status === 'generating') return 'being made';
  if (error !== null) return describeCode(error).title;
  return `${cards(candidate_count)}${partial ? ', broken off' : ''}`;
}
