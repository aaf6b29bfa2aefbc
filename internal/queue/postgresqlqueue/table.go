package postgresqlqueue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// TableError tells what is wrong with the table, and what would be right. It shows nothing of its rows.
type TableError struct {
	text string
	// missing tells that there is no table of that name.
	missing bool
	// refuses tells that the table does not take an item.
	refuses bool
}

// Error implements error. It is to be put after the name of the server.
func (e TableError) Error() string { return e.text }

// Unwrap tells those who ask for errors.ErrUnsupported that the same item will be refused again.
func (e TableError) Unwrap() error {
	if e.refuses {
		return errors.ErrUnsupported
	}
	return nil
}

// refused is the error of an item that the table does not take.
func refused(format string, args ...any) error {
	return TableError{text: fmt.Sprintf(format, args...), refuses: true}
}

func wrong(format string, args ...any) error { return TableError{text: fmt.Sprintf(format, args...)} }

// table is what the server says of the user's table and of the records next to it. It is asked for anew by each
// transaction, because both may change.
type table struct {
	Schema, Name, User string
	// Kind is that of pg_class: r and p are tables.
	Kind    string
	Columns []column
	// Unique are the columns that are unique by themselves.
	Unique []string
	// Referenced is a table whose rows refer to this one's; empty when there is none.
	Referenced string
	// Denied are the rights that the user does not have, of those that claims need; on the records as well.
	Denied, RecordsDenied []string
	// Records tells that the records exist, and MayCreate that the user may create them.
	Records, MayCreate bool

	key, item column
}

type column struct {
	Name, Type string
	// Default is the expression that gives the value where none is given; empty when there is none.
	Default            string
	Generated, NotNull bool
}

// Names of the tables of records, in the schema of the user's table.
const (
	itemsTable  = "offboard_items"
	queuesTable = "offboard_queues"
)

// describeTable is asked with the table's name in quotes.
const describeTable = `
SELECT json_build_object(
  'Schema', n.nspname, 'Name', c.relname, 'Kind', c.relkind, 'User', current_user,
  'Columns', (SELECT json_agg(json_build_object(
      'Name', a.attname, 'Type', format_type(a.atttypid, -1), 'Generated', a.attgenerated <> '',
      'NotNull', a.attnotnull,
      'Default', CASE WHEN a.attgenerated = '' THEN pg_get_expr(d.adbin, d.adrelid) END) ORDER BY a.attnum)
    FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
  'Unique', (SELECT json_agg(a.attname)
    FROM pg_index x JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0]
    WHERE x.indrelid = c.oid AND x.indisunique AND x.indisvalid AND x.indnkeyatts = 1 AND x.indpred IS NULL),
  'Referenced', (SELECT min(f.conrelid::regclass::text) FROM pg_constraint f
    WHERE f.contype = 'f' AND f.confrelid = c.oid),
  'Denied', (SELECT json_agg(r) FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) r
    WHERE NOT has_table_privilege(c.oid, r)),
  'Records', (SELECT count(*) = 2 FROM pg_class o
    WHERE o.relnamespace = n.oid AND o.relname IN ('` + itemsTable + `', '` + queuesTable + `')),
  'RecordsDenied', (SELECT json_agg(DISTINCT r)
    FROM pg_class o, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) r
    WHERE o.relnamespace = n.oid AND o.relname IN ('` + itemsTable + `', '` + queuesTable + `')
      AND NOT has_table_privilege(o.oid, r)),
  'MayCreate', has_schema_privilege(n.oid, 'CREATE'))::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)`

// describe asks the server for the table.
func (q *Queue) describe(ctx context.Context, tx pgx.Tx) (*table, error) {
	name, err := ParseName(q.options.Table)
	if err != nil {
		return nil, TableError{text: fmt.Sprintf("is asked for table %q, which %s", q.options.Table, err), missing: true}
	}
	var text string
	switch err := tx.QueryRow(ctx, describeTable, name.Sanitize()).Scan(&text); {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, TableError{
			text: "has no table " + q.options.Table + " that the user sees; correct claimTable", missing: true,
		}
	case err != nil:
		return nil, err
	}
	t := &table{}
	if err := json.Unmarshal([]byte(text), t); err != nil {
		return nil, wrong("describes its table in a way that is not understood")
	}
	if t.Records && len(t.RecordsDenied) > 0 {
		return nil, wrong("denies user %q what claims need on %s and %s; allow it with GRANT %s ON %s, %s TO ...",
			t.User, itemsTable, queuesTable, strings.Join(t.RecordsDenied, ", "), t.items(), t.queues())
	}
	return t, nil
}

func (t *table) quoted() string { return pgx.Identifier{t.Schema, t.Name}.Sanitize() }
func (t *table) items() string  { return pgx.Identifier{t.Schema, itemsTable}.Sanitize() }
func (t *table) queues() string { return pgx.Identifier{t.Schema, queuesTable}.Sanitize() }

func (c column) quoted() string { return pgx.Identifier{c.Name}.Sanitize() }

// bytes is the expression of the column's value as bytes.
func (c column) bytes() string {
	if c.Type == typeBytes {
		return c.quoted()
	}
	return "convert_to(" + c.quoted() + "::text, 'UTF8')"
}

// typeBytes is the type of columns that hold any bytes.
const typeBytes = "bytea"

// find notes the columns of the key and the item, and refuses a table that cannot hand out items.
func (q *Queue) find(t *table) error {
	if t.Kind != "r" && t.Kind != "p" {
		return wrong("has %s, which is no table; give a table as claimTable", q.options.Table)
	}
	var err error
	if t.key, err = t.column("claimKey", q.options.Key); err != nil {
		return err
	}
	if t.item, err = t.column("claimItem", q.options.Item); err != nil {
		return err
	}
	switch {
	case !t.key.NotNull || !slices.Contains(t.Unique, t.key.Name):
		return wrong("has no key %q of table %s that tells its rows apart; give a column as claimKey that is "+
			"a primary key, or NOT NULL and UNIQUE", t.key.Name, q.options.Table)
	case t.Referenced != "":
		return wrong("has rows in %s that refer to those of %s, and would lose them when these are claimed; "+
			"claim from a table to which none refers", t.Referenced, q.options.Table)
	case len(t.Denied) > 0:
		denied := strings.Join(t.Denied, ", ")
		return wrong("denies user %q %s on table %s, which claims need; allow it with GRANT %s ON %s TO ...",
			t.User, denied, q.options.Table, denied, t.quoted())
	}
	return nil
}

func (t *table) column(parameter, text string) (column, error) {
	name, err := ParseName(text)
	if err != nil || len(name) != 1 {
		return column{}, wrong("%s %q is no name of a column", parameter, text)
	}
	at := slices.IndexFunc(t.Columns, func(c column) bool { return c.Name == name[0] })
	if at < 0 {
		return column{}, wrong("has no column %q in table %s; correct %s", name[0], t.Name, parameter)
	}
	return t.Columns[at], nil
}

// kept are the columns that a row consists of: the others follow from them.
func (t *table) kept() []column {
	return slices.DeleteFunc(slices.Clone(t.Columns), func(c column) bool { return c.Generated })
}

func namesOf(columns []column) []string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.Name
	}
	return names
}

// createRecords are the statements of docs/queue-postgresql.md, in a schema.
const createRecords = `
CREATE TABLE IF NOT EXISTS %[1]s.offboard_queues (
  queue text PRIMARY KEY,
  last_id bigint NOT NULL DEFAULT 0,
  done bigint NOT NULL DEFAULT 0,
  buried bigint NOT NULL DEFAULT 0,
  dropped bigint NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS %[1]s.offboard_items (
  queue text NOT NULL,
  id bigint NOT NULL,
  key text NOT NULL,
  state text NOT NULL CHECK (state IN ('ready', 'claimed', 'retry', 'dead')),
  claim bigint NOT NULL,
  part integer NOT NULL,
  attempts integer NOT NULL,
  failures integer NOT NULL,
  total integer NOT NULL,
  seen timestamptz NOT NULL,
  owner text,
  since timestamptz,
  at timestamptz,
  first_failure bytea,
  last_failure bytea,
  item bytea,
  fields jsonb,
  PRIMARY KEY (queue, id)
);
CREATE INDEX IF NOT EXISTS offboard_items_state ON %[1]s.offboard_items (queue, state, at);
CREATE INDEX IF NOT EXISTS offboard_items_claim ON %[1]s.offboard_items (queue, claim);
CREATE UNIQUE INDEX IF NOT EXISTS offboard_items_key ON %[1]s.offboard_items (queue, key) WHERE state = 'ready';
`

// create creates the records where they are missing.
func (t *table) create(ctx context.Context, tx pgx.Tx) error {
	if t.Records {
		return nil
	}
	if !t.MayCreate {
		return wrong("has no tables %s and %s in schema %s, and user %q may not create them; "+
			"create them as docs/queue-postgresql.md says, or allow it with GRANT CREATE ON SCHEMA",
			itemsTable, queuesTable, t.Schema, t.User)
	}
	// Others may be about to create them as well. Where they have done so meanwhile, the statements would still lock the
	// tables, and be in the way of who uses them already.
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", t.items()); err != nil {
		return err
	}
	err := tx.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL AND to_regclass($2) IS NOT NULL", t.items(), t.queues()).
		Scan(&t.Records)
	if err != nil || t.Records {
		return err
	}
	if _, err := tx.Exec(ctx, fmt.Sprintf(createRecords, pgx.Identifier{t.Schema}.Sanitize())); err != nil {
		return err
	}
	t.Records = true
	return nil
}
