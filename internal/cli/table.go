package cli

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/fatih/color"
)

// cell is one value of a table, on one line and printable.
type cell struct {
	text   string
	colour []color.Attribute
}

func plain(text string) cell { return cell{text: text} }

func number[N int | int32 | int64](n N) cell { return cell{text: fmt.Sprint(n)} }

// row is one line of a table.
type row struct {
	// key names the object and is not printed.
	key   string
	cells []cell
}

// table prints rows in columns that fit. Printed again with more rows, as a watch does, the columns stay where they are
// as long as the new rows fit.
type table struct {
	header []string
	// moving are the columns that change with time alone; a watch does not print a row for their sake.
	moving   map[string]bool
	coloured bool

	widths  []int
	printed bool
}

const columnGap = 3

// print writes the rows, after the header when they are the first.
func (t *table) print(w io.Writer, rows []row) error {
	if t.widths == nil {
		t.widths = make([]int, len(t.header))
		for i, name := range t.header {
			t.widths[i] = utf8.RuneCountInString(name)
		}
	}
	for _, r := range rows {
		for i, c := range r.cells {
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(c.text))
		}
	}
	var b strings.Builder
	if !t.printed {
		header := make([]cell, len(t.header))
		for i, name := range t.header {
			header[i] = cell{name, []color.Attribute{color.Bold}}
		}
		t.line(&b, header)
		t.printed = true
	}
	for _, r := range rows {
		t.line(&b, r.cells)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (t *table) line(b *strings.Builder, cells []cell) {
	for i, c := range cells {
		b.WriteString(paint(t.coloured, c.text, c.colour...))
		if i < len(cells)-1 {
			b.WriteString(strings.Repeat(" ", t.widths[i]-utf8.RuneCountInString(c.text)+columnGap))
		}
	}
	b.WriteByte('\n')
}

// state is a row's content without the columns that move.
func (t *table) state(r row) string {
	var b strings.Builder
	for i, c := range r.cells {
		if !t.moving[t.header[i]] {
			b.WriteString(c.text)
		}
		b.WriteByte(0)
	}
	return b.String()
}
