// Shapes that several modules of static/js share.

interface Operator {
  canOperate: boolean;
  /** Shows the dialog of an action. */
  open(plan: Plan): void;
}

/** A text field of an action's dialog. */
interface Field {
  name: string;
  label: string;
  hint?: string;
  /** What to enter, shown while the field is empty. */
  missing?: string;
  optional?: boolean;
}

/** What an action's dialog shows before it is applied; without a `token` there is nothing to apply. */
interface Preview {
  text: string;
  token: any;
  before?: Facts;
  after?: Facts;
}

type Facts = Record<string, string | number | null>;
type Values = Record<string, string>;

/** An action: how it is previewed, applied, and seen to be done. */
interface Plan {
  title: string;
  button: string;
  kind?: string;
  fields: Field[];
  preview(values: Values): Promise<Preview>;
  /** Resolves to the server's answer. */
  apply(reason: string, token: any, values: Values): Promise<any>;
  /** A sentence once the snapshot shows the outcome, otherwise null. */
  done(answer: any, snapshot: Snapshot): string | null;
  progress?(answer: any, snapshot: Snapshot): Progress | null;
  /** It may take hours, and continues without the page. */
  patient?: boolean;
}

interface Progress {
  value: number;
  max: number;
  text: string;
}

interface Column<Item> {
  create(): HTMLTableCellElement;
  update(cell: HTMLTableCellElement, item: Item, snapshot: Snapshot): void;
}

interface RowButton<Item> {
  kind: string;
  word(item: Item): string;
  label(item: Item): string;
  fits(item: Item, snapshot: Snapshot): boolean;
  press(item: Item, snapshot: Snapshot): void;
}

/** As the server takes it. */
interface DeadLetterFilter {
  error_code?: string;
  topic?: string;
  partition?: number;
}

interface ConnectionState {
  kind: "connecting" | "open" | "waiting" | "polling" | "logged-out" | "over";
  attempts?: number;
  reason?: string;
  /** When the next attempt starts, in ms since the epoch. */
  until?: number;
}

/** The colours and patterns of a strip, in the present theme and resolution. */
interface Paint {
  ratio: number;
  line: string;
  unread: string;
  tip: string;
  gap: string;
  fill(context: CanvasRenderingContext2D, kind: string): string | CanvasPattern;
}
