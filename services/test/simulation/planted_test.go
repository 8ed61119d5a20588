package simulation

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/trunkline-sms/trunkline/pkg/testkit/testnote"
)

// A planted bug that cannot be planted any more tests nothing.
func TestPlanted_Applies(t *testing.T) {
	if _, err := exec.LookPath("patch"); err != nil {
		testnote.Skip(t, "planted bugs take patch: "+err.Error())
	}
	bugs, err := filepath.Glob("testdata/planted/*.patch")
	if err != nil || len(bugs) == 0 {
		t.Fatalf("got no planted bugs: %v", err)
	}
	for _, bug := range bugs {
		text, err := os.ReadFile(bug)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range []string{"what: ", "suites: "} {
			if !bytes.Contains(text, []byte(line)) {
				t.Errorf("%s has no line %q", bug, line)
			}
		}
		cmd := exec.CommandContext(t.Context(), "patch", "--dry-run", "--strip=1", "--directory=../../..")
		cmd.Stdin = bytes.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", bug, err, out)
		}
	}
}
