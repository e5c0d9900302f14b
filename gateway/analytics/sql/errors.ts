/** Why a statement is refused, and what would be accepted in its place. */
import { HeadwaterError } from "../../../runtime/errors.ts";

/** A place in the text; both count from 1. */
export interface SqlPlace {
  readonly line: number;
  readonly column: number;
}

/** The statement is not run at all. docs/reference/sql.md shows the shape that is accepted. */
export class SqlNotSupportedError extends HeadwaterError {
  readonly place: SqlPlace;

  constructor(place: SqlPlace, problem: string, accepted: string) {
    super("SQL_NOT_SUPPORTED", {
      message: `line ${place.line}, column ${place.column}: ${problem}`,
      hint: `accepted: ${accepted}`,
    });
    this.place = place;
  }
}
