package event_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// section is what docs/events.md says of a kind.
type section struct {
	stream, subject, example string
	fields                   []string // "name: type", in the page's order
}

func readPage(t *testing.T) map[event.Kind]section {
	t.Helper()
	text, err := os.ReadFile("../../docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	page := map[event.Kind]section{}
	var kind event.Kind
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		s := page[kind]
		switch {
		case strings.HasPrefix(line, "### "):
			kind = event.Kind(line[4:])
			s = section{}
		case strings.HasPrefix(line, "#"):
			kind = ""
		case strings.HasPrefix(line, "* Stream: "):
			s.stream = strings.Trim(line[10:], "`")
		case strings.HasPrefix(line, "* Subject: "):
			s.subject = strings.Trim(line[11:], "`")
		case strings.HasPrefix(line, "{"):
			s.example = line
		case strings.HasPrefix(line, "| `"):
			cells := strings.Split(line, " | ")
			s.fields = append(s.fields, strings.Trim(cells[0], "| `")+": "+cells[1])
		}
		page[kind] = s
	}
	delete(page, "")
	return page
}

func TestEventsPage(t *testing.T) {
	page := readPage(t)
	kinds := map[event.Kind]bool{}
	for e := range examples {
		kinds[e.Kind()] = true
	}
	for _, kind := range declaredKinds(t) {
		if !kinds[kind] {
			t.Errorf("%s has no golden bytes", kind)
		}
		if _, ok := page[kind]; !ok {
			t.Errorf("the page has no section %s", kind)
		}
	}
	for kind := range page {
		if !kinds[kind] {
			t.Errorf("the page has a section %s, which there is not", kind)
		}
	}
	for e := range examples {
		t.Run(string(e.Kind()), func(t *testing.T) {
			got := page[e.Kind()]
			golden, err := os.ReadFile(filepath.Join("testdata", string(e.Kind())+".json"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.TrimSpace(string(golden)), got.example); diff != "" {
				t.Errorf("example (-golden +page):\n%s", diff)
			}
			if diff := cmp.Diff(fieldsOf(t, reflect.TypeOf(e).Elem(), ""), got.fields); diff != "" {
				t.Errorf("fields (-code +page):\n%s", diff)
			}
			stream, subject := placeOf(t, e.Kind())
			if diff := cmp.Diff([]string{stream, subject}, []string{fill(got.stream), fill(got.subject)}); diff != "" {
				t.Errorf("place (-code +page):\n%s", diff)
			}
		})
	}
}

// declaredKinds reads the kinds off the source, so that a new one cannot be
// forgotten.
func declaredKinds(t *testing.T) []event.Kind {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "event.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []event.Kind
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if name, ok := spec.Type.(*ast.Ident); ok && name.Name == "Kind" {
			text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			kinds = append(kinds, event.Kind(text))
		}
		return true
	})
	if len(kinds) == 0 {
		t.Fatal("found no kinds in event.go")
	}
	return kinds
}

// words are the page's for the types of fields.
var words = map[reflect.Type]string{
	reflect.TypeFor[streams.MessageID]():   "message id",
	reflect.TypeFor[streams.LeaseID]():     "lease id",
	reflect.TypeFor[streams.DeviceID]():    "device id",
	reflect.TypeFor[streams.State]():       "state",
	reflect.TypeFor[streams.LapsePolicy](): "policy",
	reflect.TypeFor[streams.Lane]():        "lane",
	reflect.TypeFor[bool]():                "boolean",
	reflect.TypeFor[event.Private]():       "text",
	reflect.TypeFor[json.RawMessage]():     "JSON",
	reflect.TypeFor[time.Time]():           "time",
	reflect.TypeFor[string]():              "text",
	reflect.TypeFor[int]():                 "integer",
	reflect.TypeFor[uint64]():              "integer",
	reflect.TypeFor[int64]():               "integer",
	reflect.TypeFor[streams.VersionCode](): "integer",
}

// fieldsOf lists the fields of a kind as the page should.
func fieldsOf(t *testing.T, of reflect.Type, prefix string) []string {
	t.Helper()
	var all []string
	for i := range of.NumField() {
		field := of.Field(i)
		if field.Anonymous {
			all = append(all, fieldsOf(t, field.Type, prefix)...)
			continue
		}
		tag := strings.Split(field.Tag.Get("json"), ",")
		kind, inner := field.Type, ""
		word, known := words[kind]
		if !known && kind.Kind() == reflect.Slice {
			kind = kind.Elem()
			if word, known = words[kind]; known {
				word = "list of " + word
			} else {
				word, known, inner = "list of object", kind.Kind() == reflect.Struct, "[]."
			}
		}
		if !known {
			t.Fatalf("field %s has the type %s, for which the page has no word", field.Name, field.Type)
		}
		if slices.Contains(tag[1:], "omitempty") || slices.Contains(tag[1:], "omitzero") {
			word += ", optional"
		}
		all = append(all, prefix+tag[0]+": "+word)
		if inner != "" {
			all = append(all, fieldsOf(t, kind, prefix+tag[0]+inner)...)
		}
	}
	return all
}

const (
	pageAccount streams.AccountID = 0x4a
	pageTarget  streams.DeviceID  = 0x3a
)

// fill puts values in the place of a subject's or a stream's words.
func fill(pattern string) string {
	return strings.NewReplacer(
		"<shard>", "7", "<account>", pageAccount.String(), "<target>", pageTarget.String(),
		"<priority>", "high", "<class>", "other", "<code>", "5", "<instance>", "3", "<hash>", strings.Split(streams.KeySubject(7, pageAccount, "key"), ".")[4],
	).Replace(pattern)
}

// placeOf gives the stream and the subject of a kind, as the contract's
// functions do.
func placeOf(t *testing.T, kind event.Kind) (stream, subject string) {
	t.Helper()
	switch kind {
	case event.KindEnqueued:
		return streams.EnqueueStream(7), streams.EnqueueSubject(7, pageAccount, streams.Lane{Target: pageTarget, Priority: streams.High, Class: streams.Other})
	case event.KindScheduled:
		return streams.EnqueueStream(7), streams.ScheduledSubject(7, pageAccount)
	case event.KindKeyed:
		return streams.EnqueueStream(7), streams.KeySubject(7, pageAccount, "key")
	case event.KindBarrier:
		return streams.EnqueueStream(7), streams.BarrierSubject(7)
	case event.KindFence:
		return streams.EnqueueStream(7), streams.FenceSubject(7, 3)
	case event.KindReserved:
		return streams.EnqueueStream(7), streams.ReservedSubject(7, 3)
	case event.KindLeased, event.KindRenewed, event.KindLapsed, event.KindCancelled, event.KindExpired, event.KindRequeued:
		return streams.StatusStream(7), streams.DecisionSubject(7, pageAccount)
	case event.KindReported:
		return streams.StatusStream(7), streams.ReportSubject(7, pageAccount)
	case event.KindHorizon:
		return streams.StatusStream(7), streams.HorizonSubject(7)
	case event.KindPublished, event.KindActivated, event.KindWithdrawn:
		return streams.ReleaseStream, streams.ReleaseSubject(5)
	case event.KindDownloaded:
		return streams.ReleaseStream, streams.DownloadSubject(5)
	}
	t.Fatalf("say here where %s is published", kind)
	return "", ""
}
