package pkg_test

import (
	"io/fs"
	"os"
	"regexp"
	"strings"
	"testing"
)

// fences are what depends on how an engine or client of one version works inside, which no promise of theirs covers.
// Where a version changes, somebody looks at each place that names it, and writes the new version here.
var fences = []struct {
	module, checked string // the version that the places were last checked against
	place           string
	look            string // for what, in the module
	marks           string // what only this place has, besides tests
}{
	{"github.com/nats-io/nats-server/v2", "v2.15.2", "natsd/filestore",
		"server/filestore.go: the layout of a record, its checksum, the folders of a stream, what a start cuts off and deletes", `minio/highwayhash`},
	{"github.com/nats-io/nats-server/v2", "v2.15.2", "testkit/bustest",
		"server/ats: utime and refs, which are linked to; what moves them, and when", `//go:linkname`},
	{"github.com/nats-io/nats.go", "v1.55.0", "object",
		"jetstream/object.go: the subjects of an object store, the headers and the JSON of an object", `"\$O\.`},
}

// A change of the engine's version is looked at before it is taken.
func TestEngineVersions(t *testing.T) {
	for _, path := range []string{"go.mod", "../services/go.mod"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, fence := range fences {
			found := regexp.MustCompile(`(?m)^\s*` + regexp.QuoteMeta(fence.module) + ` (\S+)`).FindSubmatch(text)
			if found == nil {
				t.Errorf("%s requires no %s: is the fence pkg/%s still needed?", path, fence.module, fence.place)
				continue
			}
			if got := string(found[1]); got != fence.checked {
				t.Errorf("%s has %s %s, and pkg/%s was last checked against %s: look at %s, then name the new version in this test",
					path, fence.module, got, fence.place, fence.checked, fence.look)
			}
		}
	}
}

// What knows the engine's inside stands behind its fence.
func TestEngineFences(t *testing.T) {
	for _, fence := range fences {
		marks, inside := regexp.MustCompile(fence.marks), 0
		for _, module := range []string{".", "../services", "../streams"} {
			err := fs.WalkDir(os.DirFS(module), ".", func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
					return err
				}
				text, err := fs.ReadFile(os.DirFS(module), path)
				switch {
				case err != nil || !marks.Match(text):
				case module == "." && strings.HasPrefix(path, fence.place+"/"):
					inside++
				default:
					t.Errorf("%s/%s has %s, which is for pkg/%s alone", module, path, fence.marks, fence.place)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if inside == 0 {
			t.Errorf("pkg/%s has no %s: the test looks for what is not there", fence.place, fence.marks)
		}
	}
}
