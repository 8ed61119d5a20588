package main

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/trunkline-sms/trunkline/services/operator"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"trunkline": main})
}

// The scripts run the command as people do, against a server that is a process
// of its own.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Values[serverKey{}] = new(server)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"server":      startServer, // starts one on ./data, sets URL and, on a first start, TOKEN
			"stop":        stopServer,  // ends it as SIGTERM does
			"kill":        killServer,  // ends it as SIGKILL does
			"stop-across": stopAcross,  // the same in the middle of a request: PATH BODY
			"stop-twice":  stopTwice,   // twice, in the middle of a request: PATH
			"http":        callHTTP,    // METHOD PATH [BODY]: prints status and answer
			"match":       match,       // NAME REGEXP: sets NAME to what the first group matches in stdout
			"apk":         makeAPK,     // FILE PACKAGE VERSION CODE: builds a signed app
		},
	})
}

func TestEveryCommandHasAnExample(t *testing.T) {
	parser := newParser(&operator.Terminal{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard})
	leaves := parser.Model.Leaves(false)
	if len(leaves) == 0 {
		t.Fatal("got no commands")
	}
	for _, leaf := range leaves {
		if leaf.Help == "" || !strings.HasSuffix(leaf.Help, ".") {
			t.Errorf("%s: got help %q, want a sentence", leaf.FullPath(), leaf.Help)
		}
		words, _, _ := strings.Cut(leaf.FullPath(), " <")
		_, example, found := strings.Cut(leaf.Detail, "Example:\n\n    ")
		if !found || !strings.HasPrefix(example, words) {
			t.Errorf("%s: got no example that begins with it:\n%s", leaf.FullPath(), leaf.Detail)
			continue
		}
		if _, err := parser.Parse(strings.Fields(example)[1:]); err != nil {
			t.Errorf("%s: the example is refused: %v", leaf.FullPath(), err)
		}
		for _, flag := range leaf.Flags {
			if flag.Help == "" {
				t.Errorf("%s: flag --%s has no help", leaf.FullPath(), flag.Name)
			}
		}
	}
}

func TestHelpShowsTheExample(t *testing.T) {
	var out bytes.Buffer
	parser := newParser(&operator.Terminal{In: strings.NewReader(""), Out: &out, Err: io.Discard})
	parser.Exit = func(int) {}
	_, _ = parser.Parse([]string{"account", "create", "--help"})
	if want := "    trunkline account create shop --limit 10000"; !strings.Contains(out.String(), want) {
		t.Errorf("got help without %q:\n%s", want, out.String())
	}
}

func TestPathOfANodeWithoutArguments(t *testing.T) {
	parser := newParser(&operator.Terminal{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard})
	for want, args := range map[string][]string{
		"trunkline":                {"nonsense"},
		"trunkline account":        {"account", "nonsense"},
		"trunkline account create": {"account", "create"},
		"trunkline message show":   {"message", "show", "1", "2"},
	} {
		_, err := parser.Parse(args)
		var usage *kong.ParseError
		if !errors.As(err, &usage) {
			t.Errorf("%v: got error %v, want one about usage", args, err)
			continue
		}
		if got := path(usage.Context); got != want {
			t.Errorf("%v: got %q, want %q", args, got, want)
		}
	}
}
