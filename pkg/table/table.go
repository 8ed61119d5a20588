// Package table prints rows of cells that stand below each other: what commands show to people.
package table

import (
	"bytes"
	"fmt"
	"io"
	"text/tabwriter"
)

// Table is a text of rows and lines. The cells of rows that follow each other stand in columns; a line, also an empty one,
// ends the columns. The zero value is an empty table whose cells are aligned on the left. It is for one goroutine.
type Table struct {
	// Right aligns the cells on the right, as numbers are read.
	Right bool

	text bytes.Buffer
}

// Row adds a row. Cells are formatted as fmt.Print does; they hold neither tabs nor line ends.
func (t *Table) Row(cells ...any) {
	for i, cell := range cells {
		fmt.Fprint(&t.text, cell)
		if t.Right || i < len(cells)-1 {
			t.text.WriteByte('\t') // a cell without one is no part of its column
		}
	}
	t.text.WriteByte('\n')
}

// Line adds a text that is part of no column, and ends the columns above it; "" makes a gap.
func (t *Table) Line(text string) {
	t.text.WriteString(text)
	t.text.WriteByte('\n')
}

// Print writes the table.
func (t *Table) Print(w io.Writer) error {
	flags := uint(0)
	if t.Right {
		flags = tabwriter.AlignRight
	}
	columns := tabwriter.NewWriter(w, 0, 0, 2, ' ', flags)
	_, err := columns.Write(t.text.Bytes())
	if err == nil {
		err = columns.Flush()
	}
	if err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
