// What a program sees of something that was thrown, as plain data.
export function describe(error) {
  if (!(error instanceof Error)) return { thrown: error };
  const { name, message, errors } = error;
  return { name, message, stack: String(error.stack), ...(errors && { errors: errors.map(describe) }) };
}
