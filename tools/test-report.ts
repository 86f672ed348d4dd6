import path from 'node:path';
import type { TestEvent } from 'node:test/reporters';

interface Failure {
  title: string;
  file: string;
  text: string;
}

/** Shows tests as they end, and at the end everything that deserves a look. */
export class TestReport {
  readonly #root: string;
  readonly #started = performance.now();
  #passed = 0;
  readonly #failures: Failure[] = [];
  readonly #skips: { title: string; reason: string }[] = [];
  /** The last output of each file, shown when one of its tests fails. */
  readonly #output = new Map<string, string>();

  /** `root`: paths are shown from there. */
  constructor(root: string) {
    this.#root = root;
  }

  /** Nothing failed. */
  get good(): boolean {
    return this.#failures.length === 0;
  }

  /** A failure outside of any test. */
  failure(text: string): void {
    this.#failures.push({ title: text, file: '', text: '' });
    process.stdout.write(`FAILED  ${text}\n`);
  }

  /** Something to know that is no failure. */
  note(text: string): void {
    process.stdout.write(`note    ${text}\n`);
  }

  event(event: TestEvent): void {
    switch (event.type) {
      case 'test:pass':
      case 'test:fail': {
        const { data } = event;
        // A suite is told by its tests.
        if (data.details.type === 'suite' && event.type === 'test:pass') return;
        const file = data.file === undefined ? '' : path.relative(this.#root, data.file);
        // A file without a test passes as a test that bears its name; that is not one.
        if (event.type === 'test:pass' && data.file !== undefined && data.name === data.file) return;
        const seconds = `${(data.details.duration_ms / 1000).toFixed(2)} s`;
        if (data.skip !== undefined && data.skip !== false) {
          const reason = typeof data.skip === 'string' && data.skip !== '' ? data.skip : '(no reason given)';
          this.#skips.push({ title: data.name, reason });
          process.stdout.write(`skip    ${data.name}: ${reason}\n`);
        } else if (event.type === 'test:pass' || (data.todo !== undefined && data.todo !== false)) {
          this.#passed++;
          process.stdout.write(`ok      ${data.name} (${seconds})\n`);
        } else {
          const { error } = event.data.details;
          // Its part that failed is told already.
          if (Reflect.get(error, 'failureType') === 'subtestsFailed') return;
          const text = describe(error);
          this.#failures.push({ title: data.name, file, text });
          process.stdout.write(`FAILED  ${data.name} (${seconds}, ${file})\n`);
        }
        return;
      }
      case 'test:stdout':
      case 'test:stderr': {
        const file = path.relative(this.#root, event.data.file);
        this.#output.set(file, ((this.#output.get(file) ?? '') + event.data.message).slice(-4000));
        return;
      }
      default:
    }
  }

  /** The closing text: skips with their reasons, failures with what is known, and the counts in the last line. */
  summary(): string {
    let text = '';
    if (this.#skips.length > 0) {
      text += '\nSkipped:\n';
      for (const { title, reason } of this.#skips) text += `  ${title}\n    ${reason}\n`;
    }
    if (this.#failures.length > 0) {
      text += '\nFailed:\n';
      for (const { title, file, text: detail } of this.#failures) {
        text += `  ${title}${file === '' ? '' : ` (${file})`}\n${indent(detail, 4)}`;
      }
      for (const file of new Set(this.#failures.map((failure) => failure.file))) {
        const output = this.#output.get(file);
        if (output !== undefined) text += `\n  Last output of ${file}:\n${indent(output, 4)}`;
      }
    }
    const minutes = ((performance.now() - this.#started) / 60_000).toFixed(1);
    const counts = `${this.#passed} passed, ${this.#failures.length} failed, ${this.#skips.length} skipped`;
    return `${text}\nTook ${minutes} minutes.\n${counts}\n`;
  }
}

/** The error of a failed test; node:test wraps what was thrown in an error of its own. */
function describe(error: unknown): string {
  const cause = error instanceof Error && error.cause !== undefined ? error.cause : error;
  if (!(cause instanceof Error)) return String(cause);
  const lines = [shorten(cause.stack ?? cause.message)];
  for (const name of ['code', 'remedy', 'lines'] as const) {
    const value: unknown = Reflect.get(cause, name);
    if (value !== undefined && value !== 'ERR_ASSERTION') lines.push(`${name}: ${JSON.stringify(value)}`);
  }
  if (cause.cause instanceof Error) lines.push(`cause: ${shorten(cause.cause.stack ?? cause.cause.message)}`);
  return lines.join('\n');
}

/** Where in Node.js itself a call came by is nobody's interest. */
function shorten(stack: string): string {
  return stack
    .split('\n')
    .filter((line) => !/^\s+at .*\(?node:internal/.test(line))
    .join('\n');
}

function indent(text: string, by: number): string {
  if (text === '') return '';
  return text
    .trimEnd()
    .split('\n')
    .map((line) => `${' '.repeat(by)}${line}\n`)
    .join('');
}
