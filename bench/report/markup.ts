/**
 * HTML from templates. Whatever is put into `html` is escaped unless it is Markup itself, so that a name, a
 * reason or an error message from outside stays text wherever it ends up, attributes included.
 */
export class Markup {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

export type Content = Markup | string | number | readonly Content[];

export function html(strings: TemplateStringsArray, ...contents: readonly Content[]): Markup {
  const parts = strings.map((string, at) => string + textOf(contents[at] ?? ''));
  return new Markup(parts.join(''));
}

export const nothing = new Markup('');

/** Attributes are always in double quotes. */
function textOf(content: Content): string {
  if (content instanceof Markup) return content.text;
  if (typeof content === 'object') return content.map(textOf).join('');
  return String(content).replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

/** For a data block: JSON has no `<` outside strings, and inside one it may be written as an escape. */
export function jsonFor(value: unknown): Markup {
  return new Markup(JSON.stringify(value).replaceAll('<', '\\u003c'));
}

/** For an executed block of our own or a library's: in a string of the code `<\/` is the same as `</`. */
export function codeFor(code: string): Markup {
  return new Markup(code.replaceAll('</script', '<\\/script'));
}
