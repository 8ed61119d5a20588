package httpgolden

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMatch(t *testing.T) {
	tests := []struct {
		name, want, got string
		ok              bool
		values          map[string]string
	}{
		{"equal", `a.b`, `a.b`, true, map[string]string{"known": "K"}},
		{"not a pattern", `a.b`, `axb`, false, map[string]string{"known": "K"}},
		{"known", `<{{known}}>`, `<K>`, true, map[string]string{"known": "K"}},
		{"known otherwise", `<{{known}}>`, `<L>`, false, map[string]string{"known": "K"}},
		{"new", `"{{id}}"`, `"0123456789abcdef"`, true, map[string]string{"known": "K", "id": "0123456789abcdef"}},
		{"no id", `"{{id}}"`, `"0123456789ABCDEF"`, false, map[string]string{"known": "K"}},
		{"twice the same", `{{id}} {{id}}`, `0123456789abcdef 0123456789abcdef`, true, map[string]string{"known": "K", "id": "0123456789abcdef"}},
		{"number", `{{number}}s`, `12s`, true, map[string]string{"known": "K"}},
		{"no number", `{{number}}s`, `s`, false, map[string]string{"known": "K"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			values := map[string]string{"known": "K"}
			if got := match(test.want, test.got, values); got != test.ok {
				t.Errorf("match is %v, want %v", got, test.ok)
			}
			if diff := cmp.Diff(test.values, values); diff != "" {
				t.Errorf("values (-want +got):\n%s", diff)
			}
		})
	}
	if match(`{{id}} {{id}}`, `0123456789abcdef 1123456789abcdef`, map[string]string{}) {
		t.Error("one name matched two values")
	}
}
