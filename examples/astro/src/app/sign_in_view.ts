/** The form with address and password. */
import type { Account } from './account.ts';
import { byId, within } from './elements.ts';

export interface SignInView {
  readonly isShown: boolean;
  show(isShown: boolean): void;
  focus(): void;
}

export function signInView(account: Account): SignInView {
  const section = byId('sign-in');
  const form = within<HTMLFormElement>(section, 'form');
  const email = byId<HTMLInputElement>('sign-in-email');
  const password = byId<HTMLInputElement>('sign-in-password');
  const message = byId('sign-in-message');

  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const isNew = (event.submitter as HTMLButtonElement | null)?.value === 'sign-up';
    const way = isNew ? account.signUp : account.signIn;
    message.textContent = '';
    form.setAttribute('aria-busy', 'true');
    void way(email.value, password.value).then((sentence) => {
      form.removeAttribute('aria-busy');
      if (sentence !== undefined) message.textContent = sentence;
      else password.value = '';
    });
  });

  return {
    get isShown() {
      return !section.hidden;
    },
    show(isShown) {
      section.hidden = !isShown;
      message.textContent = '';
    },
    focus: () => email.focus(),
  };
}
