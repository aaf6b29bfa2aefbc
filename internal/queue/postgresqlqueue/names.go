package postgresqlqueue

import (
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"
)

// maxName is how long a name may be, in bytes (NAMEDATALEN less one).
const maxName = 63

// ParseName reads a name as SQL has it, perhaps with a schema: parts between dots, each in double quotes, or else of
// letters, digits, _ and $, of which ASCII capitals become small ones.
// See https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-IDENTIFIERS.
func ParseName(text string) (pgx.Identifier, error) {
	var name pgx.Identifier
	for rest := text; ; rest = rest[1:] {
		var part string
		var ok bool
		if part, rest, ok = cutPart(rest); !ok || len(part) > maxName || strings.ContainsRune(part, 0) {
			return nil, errors.New(`is no name as SQL has it: want for example jobs, shop.jobs or "My Jobs"`)
		}
		name = append(name, part)
		if rest == "" {
			return name, nil
		}
		if rest[0] != '.' {
			return nil, errors.New("has something else behind a name: put a name that is not plain in double quotes")
		}
	}
}

// cutPart returns the part that the text begins with, and what comes after it.
func cutPart(text string) (part, rest string, ok bool) {
	if quoted, found := strings.CutPrefix(text, `"`); found {
		for {
			end := strings.IndexByte(quoted, '"')
			if end < 0 {
				return "", "", false
			}
			part, quoted = part+quoted[:end], quoted[end+1:]
			if !strings.HasPrefix(quoted, `"`) {
				return part, quoted, part != ""
			}
			part, quoted = part+`"`, quoted[1:]
		}
	}
	plain := []byte(text)
	for i, c := range plain {
		switch {
		case c >= 'A' && c <= 'Z':
			plain[i] = c + 'a' - 'A'
		case c >= 'a' && c <= 'z', c == '_', c >= 0x80:
		case i > 0 && (c >= '0' && c <= '9' || c == '$'):
		default:
			return string(plain[:i]), text[i:], i > 0
		}
	}
	return string(plain), "", text != ""
}
