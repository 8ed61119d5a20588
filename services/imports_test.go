package services_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

const module = "github.com/trunkline-sms/trunkline/"

// source is one import of one file. Paths of ours are relative to the workspace: "services/quota".
type source struct {
	folder, imports string
	ours, test      bool
}

// rule forbids an import and says why.
type rule struct {
	reason string
	broken func(source) bool
}

var rules = []rule{
	{
		"streams is the contract that others import: it may depend on nats.go only",
		func(s source) bool {
			return in(s.folder, "streams") && !s.test && !s.standard() && !in(s.imports, "streams") && !in(s.imports, "github.com/nats-io/nats.go")
		},
	},
	{
		"streams is the lowest module: not even its tests know the others",
		func(s source) bool { return in(s.folder, "streams") && s.ours && !in(s.imports, "streams") },
	},
	{
		"pkg is mechanism: it must not know a service",
		func(s source) bool { return in(s.folder, "pkg") && in(s.imports, "services") },
	},
	{
		"pkg is mechanism without SMS policy: only bustest makes our streams, only projection has the words of its own requests and of an event's header",
		func(s source) bool {
			words := s.imports == "streams/event" || s.imports == "streams/request"
			allowed := in(s.folder, "pkg/testkit/bustest") || in(s.folder, "pkg/projection") && words
			return in(s.folder, "pkg") && in(s.imports, "streams") && !allowed
		},
	},
	{
		"bustest is for tests: it pulls package testing into the binary",
		func(s source) bool {
			return s.imports == "pkg/testkit/bustest" && s.folder != "pkg/testkit/bustest" && !s.test
		},
	},
	{
		"services meet in streams and request subjects only, so that each can run alone; node, operator and cmd wire them, lab measures and test tests them together",
		func(s source) bool {
			from, to := serviceOf(s.folder), serviceOf(s.imports)
			return from != "" && to != "" && from != to && !slices.Contains([]string{"node", "operator", "cmd", "lab", "test"}, from)
		},
	},
	{
		"dispatcher/state is a function of events and times: it must not reach the engine, wait or log",
		func(s source) bool {
			return in(s.folder, "services/dispatcher/state") && !s.test && !slices.Contains(stateImports, s.imports)
		},
	},
	{
		"what is behind the dialects speaks of messages, phones and callers: the web framework belongs to the dialects",
		func(s source) bool {
			return subject(s.folder) != "" && !s.test && in(s.imports, "github.com/gin-gonic/gin")
		},
	},
	{
		"what is behind the dialects serves all of them: it must not know one, nor who wires them together",
		func(s source) bool {
			return subject(s.folder) != "" && (dialect(s.imports) || s.imports == "services/ingress")
		},
	},
	{
		"the packages behind the dialects know each other in one direction: messages may use fleet and access, fleet and registry may use access",
		func(s source) bool {
			from, to := subject(s.folder), subject(s.imports)
			return from != "" && to != "" && from != to && !slices.Contains(subjects[from], to)
		},
	},
	{
		"a dialect translates one wire API onto the packages behind it: it must not reach the engine or a projection past them",
		func(s source) bool {
			return dialect(s.folder) && !s.test && (in(s.imports, "github.com/nats-io") || in(s.imports, "go.etcd.io/bbolt"))
		},
	},
	{
		"a dialect must not know another dialect",
		func(s source) bool {
			return dialect(s.folder) && dialect(s.imports) && strings.Split(s.folder, "/")[3] != strings.Split(s.imports, "/")[3]
		},
	},
}

// stateImports is all that the dispatcher's state may import. What it may use of
// the packages time and clock, its own test says.
var stateImports = []string{
	"bytes", "crypto/sha256", "encoding/binary", "encoding/hex", "errors", "fmt", "math", "slices", "strconv", "strings", "time", "unicode/utf8",
	"github.com/tidwall/gjson", "go.etcd.io/bbolt",
	"pkg/clock", "pkg/projection", "streams", "streams/event", "streams/request",
}

// in reports whether path is the folder or below it.
func in(path, folder string) bool { return path == folder || strings.HasPrefix(path, folder+"/") }

func (s source) standard() bool {
	first, _, _ := strings.Cut(s.imports, "/")
	return !s.ours && !strings.Contains(first, ".")
}

func serviceOf(path string) string {
	if parts := strings.Split(path, "/"); len(parts) > 1 && parts[0] == "services" {
		return parts[1]
	}
	return ""
}

// subjects are the packages behind the dialects, each with those that it may use.
var subjects = map[string][]string{
	"access":    {"broadcast"},
	"broadcast": nil,
	"fleet":     {"access", "broadcast"},
	"messages":  {"access", "fleet"},
	"registry":  {"access"},
	"releases":  nil,
}

// subject names which of them a folder is of.
func subject(path string) string {
	parts := strings.Split(path, "/")
	if !in(path, "services/ingress") || len(parts) < 3 {
		return ""
	}
	if _, ok := subjects[parts[2]]; !ok {
		return ""
	}
	return parts[2]
}

func dialect(path string) bool {
	return in(path, "services/ingress/api")
}

// violations names every import under root that breaks a rule, and counts the files of each module.
func violations(root fs.FS) (found []string, files map[string]int, err error) {
	files = map[string]int{}
	for _, dir := range []string{"streams", "pkg", "services"} {
		if _, err := fs.Stat(root, dir); err != nil {
			continue
		}
		err := fs.WalkDir(root, dir, func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && d.Name() == "testdata":
				return fs.SkipDir
			case d.IsDir() || !strings.HasSuffix(path, ".go"):
				return nil
			}
			files[dir]++
			broken, err := check(root, path)
			found = append(found, broken...)
			return err
		})
		if err != nil {
			return nil, nil, err
		}
	}
	return found, files, nil
}

func check(root fs.FS, path string) ([]string, error) {
	text, err := fs.ReadFile(root, path)
	if err != nil {
		return nil, err
	}
	file, err := parser.ParseFile(token.NewFileSet(), path, text, parser.ImportsOnly)
	if err != nil {
		return nil, err
	}
	var found []string
	folder := path[:strings.LastIndex(path, "/")]
	for _, spec := range file.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, err
		}
		imports, ours := strings.CutPrefix(name, module)
		s := source{folder: folder, imports: imports, ours: ours, test: strings.HasSuffix(path, "_test.go")}
		for _, r := range rules {
			if r.broken(s) {
				found = append(found, fmt.Sprintf("%s imports %s: %s", path, name, r.reason))
			}
		}
	}
	return found, nil
}

func TestImports(t *testing.T) {
	found, files, err := violations(os.DirFS(".."))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"streams", "pkg", "services"} {
		if files[dir] == 0 {
			t.Errorf("no Go file seen in %s: the test looks in the wrong place", dir)
		}
	}
	for _, v := range found {
		t.Error(v)
	}
}

// Each rule must see the violation planted for it, and nothing else.
func TestImportRules(t *testing.T) {
	const gin, nats, bbolt = "github.com/gin-gonic/gin", "github.com/nats-io/nats.go", "go.etcd.io/bbolt"
	tests := []struct {
		file, imports string
		want          string // the start of the reason; "" is allowed
	}{
		{"streams/id.go", "encoding/hex", ""},
		{"streams/id.go", nats + "/jetstream", ""},
		{"streams/event/kind.go", module + "streams", ""},
		{"streams/id_test.go", "github.com/google/go-cmp/cmp", ""},
		{"streams/id.go", "github.com/google/go-cmp/cmp", "streams is the contract"},
		{"streams/id.go", "github.com/nats-io/nats.gone", "streams is the contract"},
		{"streams/id_test.go", module + "pkg/testkit/bustest", "streams is the lowest"},
		{"pkg/bus/bus.go", module + "pkg/fault", ""},
		{"pkg/bus/bus.go", module + "services/quota", "pkg is mechanism: "},
		{"pkg/bus/bus_test.go", module + "streams", "pkg is mechanism without"},
		{"pkg/projection/file.go", module + "streams/event", ""},
		{"pkg/projection/file.go", module + "streams/request", ""},
		{"pkg/bus/call.go", module + "streams/request", "pkg is mechanism without"},
		{"pkg/projection/file.go", module + "streams", "pkg is mechanism without"},
		{"pkg/testkit/bustest/bustest.go", module + "streams", ""},
		{"services/quota/quota.go", module + "pkg/testkit/bustest", "bustest is for tests"},
		{"services/quota/quota_test.go", module + "pkg/testkit/bustest", ""},
		{"services/quota/quota.go", module + "streams", ""},
		{"services/quota/fold/fold.go", module + "services/quota", ""},
		{"services/quota/quota.go", module + "services/dispatcher", "services meet in streams"},
		{"services/quota/quota_test.go", module + "services/dispatcher", "services meet in streams"},
		{"services/quotas/quota.go", module + "services/quota", "services meet in streams"},
		{"services/node/embedded.go", module + "services/quota", ""},
		{"services/node/cluster.go", module + "services/quota", ""},
		{"services/operator/account.go", module + "services/quota", ""},
		{"services/cmd/trunkline/main.go", module + "services/node", ""},
		{"services/dispatcher/state/fold.go", bbolt, ""},
		{"services/dispatcher/state/fold.go", module + "streams/event", ""},
		{"services/dispatcher/state/fold_test.go", nats, ""},
		{"services/dispatcher/state/fold.go", nats, "dispatcher/state is a function"},
		{"services/dispatcher/state/fold.go", module + "pkg/bus", "dispatcher/state is a function"},
		{"services/dispatcher/state/fold.go", "context", "dispatcher/state is a function"},
		{"services/dispatcher/state/fold.go", "math/rand", "dispatcher/state is a function"},
		{"services/dispatcher/pull.go", nats, ""},
		{"services/ingress/messages/messages.go", gin, "what is behind the dialects speaks"},
		{"services/ingress/access/access.go", gin, "what is behind the dialects speaks"},
		{"services/ingress/fleet/fleet.go", gin, "what is behind the dialects speaks"},
		{"services/ingress/registry/registry.go", gin, "what is behind the dialects speaks"},
		{"services/ingress/releases/releases.go", gin, "what is behind the dialects speaks"},
		{"services/ingress/messages/messages.go", nats, ""},
		{"services/ingress/messages/messages.go", module + "services/ingress/fleet", ""},
		{"services/ingress/messages/messages.go", module + "services/ingress/access", ""},
		{"services/ingress/messages/messages.go", module + "services/ingress/registry", "the packages behind the dialects know"},
		{"services/ingress/fleet/fleet.go", module + "services/ingress/access", ""},
		{"services/ingress/fleet/fleet_test.go", module + "services/ingress/messages", "the packages behind the dialects know"},
		{"services/ingress/access/access.go", module + "services/ingress/messages", "the packages behind the dialects know"},
		{"services/ingress/access/access.go", module + "services/ingress/fleet", "the packages behind the dialects know"},
		{"services/ingress/registry/registry.go", module + "services/ingress/messages", "the packages behind the dialects know"},
		{"services/ingress/messages/messages.go", module + "services/ingress/api/queue", "what is behind the dialects serves"},
		{"services/ingress/access/access.go", module + "services/ingress", "what is behind the dialects serves"},
		{"services/ingress/ingress.go", gin, ""},
		{"services/ingress/api/queue/routes.go", gin, ""},
		{"services/ingress/api/queue/routes.go", module + "services/ingress/messages", ""},
		{"services/ingress/api/queue/routes.go", nats, "a dialect translates"},
		{"services/ingress/api/queue/routes.go", bbolt, "a dialect translates"},
		{"services/ingress/api/queue/routes_test.go", nats, ""},
		{"services/ingress/api/queue/routes.go", module + "services/ingress/api/mobile", "a dialect must not know"},
	}
	for _, tt := range tests {
		t.Run(tt.file+" imports "+tt.imports, func(t *testing.T) {
			tree := fstest.MapFS{
				tt.file:                             &fstest.MapFile{Data: []byte("package x\n\nimport \"fmt\"\nimport _ " + strconv.Quote(tt.imports) + "\n\nfunc f() { not parsed }\n")},
				"services/quota/testdata/broken.go": &fstest.MapFile{Data: []byte("no Go")},
			}
			found, _, err := violations(tree)
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			if tt.want != "" {
				want = []string{tt.file + " imports " + tt.imports + ": " + tt.want}
			}
			for i := range found {
				if i < len(want) && strings.HasPrefix(found[i], want[i]) {
					found[i] = want[i]
				}
			}
			if diff := cmp.Diff(want, found); diff != "" {
				t.Errorf("violations (-want +got)\n%s", diff)
			}
		})
	}
}
