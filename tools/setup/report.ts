/** Prints the friendly lines of the setup and remembers whether something is missing. */
export class Report {
  /** Only report, change nothing. */
  readonly checkOnly: boolean;
  #missing = 0;

  constructor(checkOnly: boolean) {
    this.checkOnly = checkOnly;
  }

  /** How many things are missing (or could not be provided). */
  get missing(): number {
    return this.#missing;
  }

  ok(text: string): void {
    print('ok', text);
  }

  doing(text: string): void {
    print('doing', text);
  }

  missed(text: string): void {
    this.#missing++;
    print('missing', text);
  }

  note(text: string): void {
    print('note', text);
  }
}

function print(status: string, text: string): void {
  process.stdout.write(`${status.padEnd(8)}${text.replaceAll('\n', `\n${' '.repeat(8)}`)}\n`);
}
