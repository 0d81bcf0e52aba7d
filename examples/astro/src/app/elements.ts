/** The page's elements, by their id; one that is missing is a fault of the page. */
export function byId<E extends HTMLElement = HTMLElement>(id: string): E {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`the page has no #${id}`);
  return element as E;
}

/** A copy of a template's one element. */
export function copyOf(templateId: string): HTMLElement {
  const template = byId(templateId) as HTMLTemplateElement;
  return template.content.firstElementChild?.cloneNode(true) as HTMLElement;
}

export function within<E extends HTMLElement = HTMLElement>(parent: ParentNode, selector: string): E {
  const element = parent.querySelector<E>(selector);
  if (element === null) throw new Error(`there is no ${selector}`);
  return element;
}

/** Says something to a screen reader, without a place on the screen. */
export function announce(sentence: string): void {
  byId('announcer').textContent = sentence;
}
