package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// logs are what all servers of this run have logged, from debug on. When all tests are over they are looked through.
var logs logBook

type logBook struct {
	dir string

	mu      sync.Mutex
	files   []string
	secrets secrets
}

// open makes a file for one server to log to.
func (l *logBook) open(t testing.TB) *os.File {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	file, err := os.OpenFile(filepath.Join(l.dir, fmt.Sprintf("server-%d.log", len(l.files))), os.O_CREATE|os.O_EXCL|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	l.files = append(l.files, file.Name())
	return file
}

// secret adds a token that must not be in any log.
func (l *logBook) secret(token string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.secrets.add(token)
}

// check looks through the logs, and adds them to those that the repository's own scan reads.
func (l *logBook) check() error {
	const enough = 20
	var problems []error
	for _, name := range l.files {
		log, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for _, found := range l.secrets.scan(strings.NewReader(string(log))) {
			if len(problems) < enough {
				problems = append(problems, fmt.Errorf("%s holds %s", name, found))
			}
		}
		if err := publish(log); err != nil {
			return err
		}
	}
	return errors.Join(problems...)
}

// publish appends a log to the one of the whole repository's tests, if there is one.
func publish(log []byte) error {
	path := os.Getenv("TRUNKLINE_TEST_LOG")
	if path == "" {
		return nil
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(log)
	return errors.Join(err, file.Close())
}

// secrets are the tokens of this run, in pieces: a log must not hold half of one either.
type secrets map[string]bool

const piece = 16 // characters: a part of 31 and more holds one

func (s *secrets) add(token string) {
	if *s == nil {
		*s = secrets{}
	}
	for i := 0; i+piece <= len(token); i += piece {
		(*s)[token[i:i+piece]] = true
	}
}

var (
	hexRun = regexp.MustCompile(`[0-9a-f]{16,}`)
	banned = map[string]*regexp.Regexp{
		"a token":       regexp.MustCompile(`(^|[^0-9A-Za-z_-])[0-9A-Za-z_-]{64}([^0-9A-Za-z_-]|$)`),
		"a number":      regexp.MustCompile(`\+[0-9]{7,15}|(^|[^0-9a-f.])` + numberStart + `[0-9]{7}([^0-9a-f]|$)|071234567`),
		"a text":        regexp.MustCompile(`secret-text-|Hello|Another test message`),
		"a panic":       regexp.MustCompile(`^panic: |"level":"(dpanic|panic|fatal)"|msg":"panic`),
		"a data race":   regexp.MustCompile(`WARNING: DATA RACE`),
		"a crash's end": regexp.MustCompile(`^fatal error: |^goroutine [0-9]+ \[`),
	}
)

// scan names the lines that hold what must not be logged, without repeating it.
func (s secrets) scan(log io.Reader) []string {
	var found []string
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 16<<20)
	for n := 1; lines.Scan(); n++ {
		for what, pattern := range banned {
			if pattern.Match(lines.Bytes()) {
				found = append(found, fmt.Sprintf("%s in line %d", what, n))
			}
		}
		for _, run := range hexRun.FindAllString(lines.Text(), -1) {
			for i := 0; i+piece <= len(run); i++ {
				if s[run[i:i+piece]] {
					found = append(found, fmt.Sprintf("a piece of a token in line %d", n))
					break
				}
			}
		}
	}
	if err := lines.Err(); err != nil {
		found = append(found, "what cannot be read: "+err.Error())
	}
	return found
}

// What is planted has to be found: else the scan of the servers' logs proves nothing.
func TestScanFindsWhatIsPlanted(t *testing.T) {
	token := strings.Repeat("0a1b2c3d4e5f6789", 4)
	var s secrets
	s.add(token)
	for name, test := range map[string]struct {
		line string
		want []string
	}{
		"clean":          {`{"level":"info","ts":"2026-11-21T06:00:00.155512345Z","id":"1555123456789abc","route":"/api/[token]/queue"}`, nil},
		"token":          {`GET /api/` + token + `/queue`, []string{"a piece of a token in line 2", "a token in line 2"}},
		"half a token":   {`token=` + token[9:41], []string{"a piece of a token in line 2"}},
		"unknown token":  {strings.Repeat("Zz", 32), []string{"a token in line 2"}},
		"number":         {`to "` + number(7) + `"`, []string{"a number in line 2"}},
		"number, no +":   {`to ` + strings.TrimPrefix(number(7), "+") + `,`, []string{"a number in line 2"}},
		"text":           {`"text":"` + text("shop", 3) + `"`, []string{"a text in line 2"}},
		"panic":          {`panic: runtime error`, []string{"a panic in line 2"}},
		"race":           {`WARNING: DATA RACE`, []string{"a data race in line 2"}},
		"goroutine dump": {`goroutine 17 [running]:`, []string{"a crash's end in line 2"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := s.scan(strings.NewReader("{}\n" + test.line + "\n{}\n"))
			if diff := cmp.Diff(test.want, got, sorted); diff != "" {
				t.Errorf("found (-want +got):\n%s", diff)
			}
		})
	}
}
