package table_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/pkg/table"
)

func TestTable(t *testing.T) {
	fill := func(tab *table.Table) *table.Table {
		tab.Row("NAME", "BYTES")
		tab.Row("ENQUEUE_0", 12)
		tab.Line("")
		tab.Line("a title that is much longer than the columns")
		tab.Row("a", "b", "c")
		tab.Row("longer", 1, 2)
		return tab
	}
	for want, tab := range map[string]*table.Table{
		`NAME       BYTES
ENQUEUE_0  12

a title that is much longer than the columns
a       b  c
longer  1  2
`: fill(&table.Table{}),
		`       NAME  BYTES
  ENQUEUE_0     12

a title that is much longer than the columns
       a  b  c
  longer  1  2
`: fill(&table.Table{Right: true}),
	} {
		var out strings.Builder
		if err := tab.Print(&out); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	}
}

type broken struct{ error }

func (b broken) Write([]byte) (int, error) { return 0, b.error }

// Whoever closed the output is told so.
func TestTable_Broken(t *testing.T) {
	want := errors.New("closed")
	var tab table.Table
	tab.Row("a", "b")
	if err := tab.Print(broken{want}); !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}
