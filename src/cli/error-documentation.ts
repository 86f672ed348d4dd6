/** One place in the source where an expected failure is made. */
export interface DocumentedError {
  code: string;
  class: string;
  /** Folder of `src` that it comes from. */
  room: string;
  /** Its message; what is put in at run time is shown as …. */
  message: string;
}

const construction =
  /new CairnError\(\s*'(argument|temporary|permanent|environment)',\s*'([a-z0-9-]+)',\s*(`[^`]*`|'(?:[^'\\]|\\.)*')?/g;

/** The failures that a source file makes. `path` is relative to `src`. */
export function errorsIn(source: string, path: string): DocumentedError[] {
  const room = path.split('/')[0] ?? '';
  return [...source.matchAll(construction)].map(([, errorClass = '', code = '', text = '']) => ({
    code,
    class: errorClass,
    room,
    message: readable(text),
  }));
}

/** `docs/errors.md`: every failure by its code. */
export function errorDocumentation(all: readonly DocumentedError[]): string {
  const byCode = Map.groupBy(
    all.toSorted((a, b) => a.code.localeCompare(b.code) || a.message.localeCompare(b.message)),
    ({ code }) => code,
  );
  const rows = [...byCode].map(([code, errors]) => {
    const classes = [...new Set(errors.map((error) => error.class))].join(', ');
    const rooms = [...new Set(errors.map(({ room }) => room))].sort().join(', ');
    const messages = [...new Set(errors.map(({ message }) => message))].filter((message) => message !== '');
    return `| \`${code}\` | ${classes} | ${rooms} | ${messages.map(escape).join('<br>')} |`;
  });
  return `# Failures

Written from the program itself. Every expected failure has a stable code and one of four classes, each with its own exit code; it says
what was tried, what failed and why, and what to do about it (the remedy, printed after \`→\`). With \`--json\` it is an object on
standard error: \`{"error": {"class", "code", "message", "remedy", "lines"}}\`.

| class | exit code | meaning |
|---|---|---|
| argument | 2 | the request names something that does not exist, or makes no sense; asking differently helps |
| temporary | 3 | the same request may succeed later |
| permanent | 4 | it will never succeed |
| environment | 5 | this host lacks something |

The code \`internal\` (exit code 1) is a defect of Cairn itself. … stands for what is known only when it happens.

| code | class | room | message |
|---|---|---|---|
${rows.join('\n')}
`;
}

/** A literal of the source as text for people. */
function readable(literal: string): string {
  return literal
    .slice(1, -1)
    .replaceAll(/\$\{(?:[^{}]|\{[^{}]*\})*\}/g, '…')
    .replaceAll(/\\(.)/g, '$1')
    .replaceAll(/\s+/g, ' ')
    .trim();
}

function escape(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('<', '&lt;').replaceAll('_', '\\_');
}
