import { JobDescription } from './description.ts';

/** The JSON Schema of the job file, as `docs/job.schema.json` has it. */
export function jobSchema(): object {
  return { $schema: 'https://json-schema.org/draft/2020-12/schema', ...JobDescription };
}
