import type { FastifySchemaCompiler } from 'fastify';
import type { TSchema } from 'typebox';
import { Compile } from 'typebox/compile';
import { Convert } from 'typebox/value';
import { CairnError } from '../errors.ts';

/**
 * Checks a part of a request against its schema. Text from the path and the query becomes numbers and booleans where the schema wants
 * them; bodies are taken as they are. Unknown fields are refused. Error: `request-invalid` with one line for each fault.
 */
export const compileValidator: FastifySchemaCompiler<TSchema> = ({ schema, httpPart, url }) => {
  const compiled = Compile(schema);
  return (data: unknown) => {
    const value: unknown = httpPart === 'body' ? data : Convert(schema, data);
    if (compiled.Check(value)) return { value };
    const lines = compiled
      .Errors(value)
      .map(({ instancePath, message }) => `${instancePath || '/'} ${message}`);
    const error = new CairnError(
      'argument',
      'request-invalid',
      `The ${httpPart ?? 'request'} of ${url ?? 'the request'} is not valid.`,
      {
        lines,
        remedy: 'GET /openapi.json describes what is expected.',
      },
    );
    return { error };
  };
};
