import { styleText } from 'node:util';
import { CairnError, exitCodes } from '../errors.ts';
import { formatJson } from './format.ts';

/** Exit code when Cairn itself is at fault. */
const defectExitCode = 1;

/** The exit code of `cairn` for something that was thrown. */
export function exitCodeFor(error: unknown): number {
  if (!(error instanceof CairnError) || error.code === 'internal') return defectExitCode;
  return exitCodes[error.class];
}

/** What was thrown as text for people, or as JSON `{"error": {class, code, message, remedy, lines}}`. */
export function renderError(error: unknown, options: { json: boolean; color: boolean }): string {
  if (options.json) return formatJson({ error: describe(error) });
  const paint = (format: Parameters<typeof styleText>[0], text: string): string =>
    options.color ? styleText(format, text, { validateStream: false }) : text;
  const { message, lines, remedy } = describe(error);
  const parts = [`${paint('red', 'error:')} ${message}`, ...lines.map((line) => `  ${line}`)];
  if (remedy !== undefined) parts.push(`${paint('cyan', '→')} ${remedy}`);
  return `${parts.join('\n')}\n`;
}

function describe(error: unknown): {
  class: string;
  code: string;
  message: string;
  remedy?: string;
  lines: readonly string[];
} {
  if (error instanceof CairnError) {
    const { class: errorClass, code, message, remedy, lines } = error;
    return { class: errorClass, code, message, ...(remedy === undefined ? {} : { remedy }), lines };
  }
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  const [first = text, ...lines] = text.split('\n');
  return {
    class: 'permanent',
    code: 'internal',
    message: `cairn itself failed: ${first}`,
    lines: lines.map((line) => line.trim()),
    remedy: 'This is a defect of Cairn; please report it with these lines.',
  };
}
