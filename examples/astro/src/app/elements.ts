/** Finds an element of the page by its id; a missing one is a fault of the page. */
export function byId<E extends HTMLElement = HTMLElement>(id: string): E {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`the page has no #${id}`);
  return element as E;
}

/** Copies the only element of a template. */
export function copyOf(templateId: string): HTMLElement {
  const template = byId(templateId) as HTMLTemplateElement;
  return template.content.firstElementChild?.cloneNode(true) as HTMLElement;
}

export function within<E extends HTMLElement = HTMLElement>(parent: ParentNode, selector: string): E {
  const element = parent.querySelector<E>(selector);
  if (element === null) throw new Error(`there is no ${selector}`);
  return element;
}

/** Announces a text to screen readers only. */
export function announce(sentence: string): void {
  byId('announcer').textContent = sentence;
}
