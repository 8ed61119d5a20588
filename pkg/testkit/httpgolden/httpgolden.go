// Package httpgolden replays requests from files against a server, and compares the answers byte for byte, except for
// what the files mask.
//
// A file has exchanges, each under a line "### title". First comes the request as on the wire, an empty line and its
// body. Then comes the answer, from a line such as "HTTP/1.1 200 OK" on: the headers that matter, an empty line and the
// body. The last newline of the file is not part of a body. {{name}} stands for a value. If the caller has not given
// one, it matches 16 hex digits of an answer, and stands for these from there on. {{number}} matches any digits, and
// {{any}} anything.
package httpgolden

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Replay runs every exchange of a file in order, as subtests. It adds the values of new names to values.
func Replay(t *testing.T, client *http.Client, url, file string, values map[string]string) {
	t.Helper()
	exchanges, err := read(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range exchanges {
		t.Run(e.title, func(t *testing.T) { e.replay(t, client, url, values) })
	}
}

// ReplayEach replays every file that a pattern matches, as a subtest under the file's name. There must be at least one.
// Each file has an account of its own: token gives its {{token}}. A file gets those of the values that it uses.
func ReplayEach(t *testing.T, client *http.Client, url, pattern string, token func(account string) string, values map[string]string) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("golden files: got %d, %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".http")
		t.Run(name, func(t *testing.T) {
			names, err := variables(file)
			if err != nil {
				t.Fatal(err)
			}
			own := map[string]string{"token": token(name)}
			for _, name := range names {
				if own[name] == "" {
					own[name] = values[name]
				}
			}
			Replay(t, client, url, file, own)
		})
	}
}

// variables lists the names that a file uses before an answer gives them a value: Replay needs values for these.
func variables(file string) ([]string, error) {
	exchanges, err := read(file)
	var names []string
	known := map[string]bool{"number": true, "any": true}
	for _, e := range exchanges {
		for i, text := range []string{e.request, e.answer} {
			for _, match := range variable.FindAllStringSubmatch(text, -1) {
				if name := match[1]; !known[name] {
					known[name] = true
					if i == 0 {
						names = append(names, name)
					}
				}
			}
		}
	}
	return names, err
}

type exchange struct{ title, request, answer string }

var answerLine = regexp.MustCompile(`(?m)^HTTP/1\.1 `)

func read(file string) ([]exchange, error) {
	content, err := os.ReadFile(filepath.Clean(file))
	if err != nil {
		return nil, err
	}
	var all []exchange
	for _, part := range strings.Split("\n"+string(content), "\n### ")[1:] {
		title, rest, _ := strings.Cut(part, "\n")
		at := answerLine.FindStringIndex(rest)
		if at == nil {
			return nil, fmt.Errorf("read %s: %q has no answer", file, title)
		}
		all = append(all, exchange{title, strings.TrimSpace(rest[:at[0]]), strings.TrimSpace(rest[at[0]:])})
	}
	return all, nil
}

func (e exchange) replay(t *testing.T, client *http.Client, url string, values map[string]string) {
	r, err := request(t.Context(), fill(e.request, values), url)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	head, wantBody := split(e.answer)
	lines := strings.Split(head, "\n")
	got := []string{"HTTP/1.1 " + answer.Status}
	for _, line := range lines[1:] {
		// A header without a value must not be in the answer.
		name, _, _ := strings.Cut(line, ":")
		got = append(got, strings.TrimSuffix(name+": "+strings.Join(answer.Header.Values(name), ", "), " "))
	}
	if want, got := strings.Join(lines, "\n"), strings.Join(got, "\n"); !match(want, got, values) {
		t.Errorf("head: got\n%s\nwant\n%s", got, fill(want, values))
	}
	if !match(wantBody, string(body), values) {
		t.Errorf("body: got\n%s\nwant\n%s", body, fill(wantBody, values))
	}
}

// request reads a request from text without names.
func request(ctx context.Context, text, url string) (*http.Request, error) {
	head, body := split(text)
	read, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head + "\n\n")))
	if err != nil {
		return nil, fmt.Errorf("read request: %w", err)
	}
	r, err := http.NewRequestWithContext(ctx, read.Method, url+read.RequestURI, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header = read.Header
	return r, nil
}

func split(text string) (head, body string) {
	head, body, _ = strings.Cut(text, "\n\n")
	return head, body
}

var variable = regexp.MustCompile(`\{\{(\w+)\}\}`)

func fill(text string, values map[string]string) string {
	return variable.ReplaceAllStringFunc(text, func(name string) string {
		if value, ok := values[strings.Trim(name, "{}")]; ok {
			return value
		}
		return name
	})
}

// match compares got with a text that has names. It sets the values of names that have none yet.
func match(want, got string, values map[string]string) bool {
	want = fill(want, values)
	var pattern strings.Builder
	var names []string
	rest := want
	for {
		at := variable.FindStringSubmatchIndex(rest)
		if at == nil {
			break
		}
		pattern.WriteString(regexp.QuoteMeta(rest[:at[0]]))
		switch name := rest[at[2]:at[3]]; name {
		case "number":
			pattern.WriteString(`\d+`)
		case "any":
			pattern.WriteString(`.*`)
		default:
			names = append(names, name)
			pattern.WriteString(`([0-9a-f]{16})`)
		}
		rest = rest[at[1]:]
	}
	pattern.WriteString(regexp.QuoteMeta(rest))
	found := regexp.MustCompile(`^(?s:` + pattern.String() + `)$`).FindStringSubmatch(got)
	if found == nil {
		return false
	}
	for i, name := range names {
		if before, ok := values[name]; ok && before != found[i+1] {
			return false
		}
		values[name] = found[i+1]
	}
	return true
}
