import { CairnError } from '../errors.ts';

/** Environment variables from `NAME=VALUE`; `NAME` alone takes the value that it has here, if it has one. Error: `environment-invalid`. */
export function environmentFrom(
  texts: readonly string[],
  own: Readonly<Record<string, string | undefined>> = process.env,
): Record<string, string> {
  const environment: Record<string, string> = {};
  for (const text of texts) {
    const equals = text.indexOf('=');
    if (equals === 0 || text === '') {
      throw new CairnError('argument', 'environment-invalid', `"${text}" is not an environment variable.`, {
        remedy: 'Write NAME=VALUE.',
      });
    }
    if (equals > 0) environment[text.slice(0, equals)] = text.slice(equals + 1);
    else if (own[text] !== undefined) environment[text] = own[text];
  }
  return environment;
}
